"""Single instructions for compiled functions that Python has no words for; only imported where numba is installed.

Machine code that numba keeps on disk has them within it: a change here does not renew it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba.extending
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

_Array = TypeVar("_Array", bound=NDArray[Any])

# Its types differ from version to version.
_NUMBA: Any = numba
_TYPES: Any = types


def _fused(context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401 (types of numba)
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.fma(*args)

    return a(a, b, c), generate


def _atomic(context: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ANN401 (types of numba)
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "monotonic")

    return _TYPES.intp(array, _TYPES.intp, _TYPES.intp), generate


def _borrowed(context: Any, array: Any) -> Any:  # noqa: ANN401 (types of numba)
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        made = context.make_array(array)(context, builder, args[0])
        made.meminfo, made.parent = made.meminfo.type(None), made.parent.type(None)
        return made._getvalue()

    return array(array), generate


def _outside(context: Any, array: Any, begin: Any, low: Any, high: Any) -> Any:  # noqa: ANN401 (types of numba)
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        number = context.get_value_type(array.dtype)
        vector, place = ir.VectorType(number, 64), ir.IntType(32)
        at = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        loaded = builder.load(at, align=context.get_abi_sizeof(number))

        def everywhere(end: Any) -> Any:  # noqa: ANN401
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), end, place(0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(place, 64), [0] * 64))

        is_low = builder.fcmp_unordered("<=", loaded, everywhere(args[2]))
        is_high = builder.fcmp_unordered(">=", loaded, everywhere(args[3]))
        return builder.bitcast(builder.or_(is_low, is_high), ir.IntType(64))

    return _TYPES.int64(array, _TYPES.intp, array.dtype, array.dtype), generate


def _first_bit(context: Any, bits: Any) -> Any:  # noqa: ANN401 (types of numba)
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.cttz(args[0], ir.IntType(1)(1))

    return _TYPES.int64(_TYPES.int64), generate


fused_multiply_add = cast("Callable[[Any, Any, Any], Any]", _NUMBA.extending.intrinsic(_fused))
"""Return ``a * b + c``, rounded once; all three of one type; for compiled functions."""
atomic_add = cast("Callable[[_Array, int, int], int]", _NUMBA.extending.intrinsic(_atomic))
"""Add to an entry of an array that other threads may add to as well, and return what it was; for compiled functions."""
outside = cast("Callable[[_Array, int, Any, Any], int]", _NUMBA.extending.intrinsic(_outside))
"""Return in 64 bits which of 64 numbers from a place on are not between two ends, or NaN; for compiled functions."""
first_bit = cast("Callable[[int], int]", _NUMBA.extending.intrinsic(_first_bit))
"""Return the place of the lowest bit that is set, of 64, one of which is; for compiled functions."""
borrowed = cast("Callable[[_Array], _Array]", _NUMBA.extending.intrinsic(_borrowed))
"""Return an array whose owners are not counted, which takes long; the one given must stay; for compiled functions."""

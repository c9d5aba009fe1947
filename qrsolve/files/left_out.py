"""Which float arrays of a file are no afferent matrices: told by name, values and neighbours, each with its reason.

A guess can be wrong, so every array that it leaves out is named in reports, and naming it takes it all the same. Where
a name alone could be that of weights, a second sign is needed: a sibling's name, a shape, or the values.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor

_STATE = re.compile(r"(?:\w*_)?(?:mem|membrane|voltage|spk|spikes?)(?:_(?:prev|rec|reset|out|state|potential))?_?\d*")
"""What only a neuron's state is called: ``mem``, ``v_mem``, ``mem_prev``, ``spk_rec``."""
_WEAK_STATE = re.compile(
    r"(?:\w*_)?(?:syn|state|hidden)(?:_(?:prev|rec|out|state))?|[ivu]|[ch]_?0|[ch]x|hidden_state|cell_state"
)
"""What a neuron's state or a matrix may be called; shapes decide."""
_WEIGHT = re.compile(r"(?:.*_)?(?:w|weights?|kernel)(?:_.*)?", re.IGNORECASE)
_MASK = re.compile(r"(?:.*_)?mask", re.IGNORECASE)
_CONSTANT = re.compile(
    r"(?:\w+_)?bias(?:_[kv]|_[ih]h\w*)?|(?:v_)?th(?:resh(?:old)?)?|v_(?:threshold|reset)|tau(?:_\w+)?|dash_\w+"
)
_PER_NEURON = re.compile(r"(?:\w+_)?(?:scales?|zero_points?|step_size|alpha|beta|gamma|decay|value)")
"""What may be one number per neuron; so it is where only one dimension is more than 1."""
_ADDED = re.compile(
    r"(?:\w+_)?(?:pos_embed(?:ding)?s?|positional_(?:encoding|embedding)s?|(?:cls|class|mask|register)_tokens?)"
)
_STATISTIC = re.compile(r"running_(?:mean|var)|num_batches_tracked")
_MOMENT = re.compile(
    r"exp_avg(?:_sq|_inf|_diff)?|max_exp_avg_sq|momentum_buffer|square_avg|grad_avg|acc_delta|master_param"
)
_OPTIMIZER = re.compile(r"optim(?:izers?)?(?:_states?)?|opt_state", re.IGNORECASE)
_FLOAT_COPY = re.compile(r"(.+?)_?(?:fp32|fp16|float32|float|fp|full_precision)")
_AVERAGE = re.compile(r"ema|ema_\w+|\w+_ema|averaged?|averaged_\w+|swa|swa_\w+|shadow", re.IGNORECASE)
_WRAPPERS = ("module", "model", "ma_model", "net")


class _Arrays:
    """The arrays of a file, found by module, by shape, and by the ends of their names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.in_module: dict[str, list[str]] = defaultdict(list)
        self.alike: dict[tuple[str, torch.Size], list[str]] = defaultdict(list)
        for name, tensor in tensors.items():
            module = _split(name)[0]
            self.in_module[module].append(name)
            self.alike[module, tensor.shape].append(name)

    def siblings(self, name: str) -> list[str]:
        """Return the other arrays of its shape in its module."""
        return [other for other in self.alike[_split(name)[0], self.tensors[name].shape] if other != name]

    @cached_property
    def by_end(self) -> dict[tuple[torch.Size, str], str]:
        """Arrays that are no averages, by shape and the last parts of their names without dots, two parts or all."""
        found: dict[tuple[torch.Size, str], str] = {}
        for name, tensor in self.tensors.items():
            parts = name.split(".")
            if not any(_AVERAGE.fullmatch(part) for part in parts):
                for i in range(max(1, len(parts) - 1)):
                    found.setdefault((tensor.shape, "".join(parts[i:])), name)
        return found

    @cached_property
    def sizes(self) -> tuple[set[int], set[int]]:
        """The numbers of rows and of columns of matrices whose names are not those of states."""
        shapes = [tensor.shape for name, tensor in self.tensors.items() if tensor.ndim >= 2 and not _is_state(name)]
        return {shape[0] for shape in shapes}, {shape[1] for shape in shapes}


def left_out_reasons(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return why float arrays of two or more dimensions are taken for no afferent matrices.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Every array of a file.

    Returns
    -------
    dict of str to str
        One reason per array that is left out; all others are weights.

    Notes
    -----
    Values are looked at only where an array of the same shape stands in the same module, which may be its mask.
    """
    arrays = _Arrays(tensors)
    reasons = {}
    for name, tensor in tensors.items():
        if tensor.ndim >= 2 and tensor.is_floating_point():
            reason = next((reason for test in _TESTS if (reason := test(name, arrays))), "")
            if reason:
                reasons[name] = reason
    return reasons


def _optimizer(name: str, arrays: _Arrays) -> str:
    parts = re.split(r"[./]", name)
    is_moment = bool(_MOMENT.fullmatch(parts[-1])) or any(_OPTIMIZER.fullmatch(part) for part in parts[:-1])
    return "state of an optimizer" if is_moment else ""


def _statistic(name: str, arrays: _Arrays) -> str:
    return "running statistics" if _STATISTIC.fullmatch(_split(name)[1]) else ""


def _constant(name: str, arrays: _Arrays) -> str:
    module, last = _split(name)
    shape = arrays.tensors[name].shape
    is_line = sum(n > 1 for n in shape) <= 1
    if _CONSTANT.fullmatch(last) or (is_line and _PER_NEURON.fullmatch(last)):
        return "a bias, or a constant of the neurons"
    if _ADDED.fullmatch(last):
        return "added to what comes in, not multiplied with it"
    bias = f"{module}.bias" if module else "bias"
    if last == "weight" and bias in arrays.tensors and arrays.tensors[bias].shape == shape:
        return f"multiplied element by element: '{bias}' has its shape"
    return ""


def _state(name: str, arrays: _Arrays) -> str:
    module, last = _split(name)
    if _WEIGHT.fullmatch(last):
        return ""
    if _STATE.fullmatch(last):
        return "state of neurons"
    if not _WEAK_STATE.fullmatch(last) or _is_one_of_many(module, last, arrays):
        return ""
    shape, (rows, columns) = arrays.tensors[name].shape, arrays.sizes
    is_of_neurons = bool({shape[1], shape[-1]} & rows)
    # A matrix of layers in a chain has as many rows as the next one has columns; so may a state by chance.
    could_feed = not module or "hidden" in last or "state" in last
    return "" if not is_of_neurons or (could_feed and shape[0] in columns) else "state of neurons, it seems"


def _is_state(name: str) -> bool:
    """Whether a name is, or could be, that of a state."""
    last = _split(name)[1]
    return not _WEIGHT.fullmatch(last) and bool(_STATE.fullmatch(last) or _WEAK_STATE.fullmatch(last))


def _is_one_of_many(module: str, last: str, arrays: _Arrays) -> bool:
    """Whether a name stands in a row of others: query, key and value; matrices that are numbered from 0."""
    names = {_split(name)[1] for name in arrays.in_module[module] if arrays.tensors[name].ndim >= 2}
    if last in ("v", "i", "u"):
        return bool(names & {"q", "k", "w", "f", "o", "g", "z", "r"})
    return last.endswith("0") and any(f"{last[:-1]}{n}" in names for n in (1, 2))


def _mask(name: str, arrays: _Arrays) -> str:
    module, last = _split(name)
    if _MASK.fullmatch(last):
        return "a mask"
    tensor = arrays.tensors[name]
    for other in arrays.siblings(name):
        weights = arrays.tensors[other]
        is_shown = bool(module) or bool((weights[tensor == 0] == 0).all())
        if _is_binary(tensor) and is_shown and weights.is_floating_point() and not _is_binary(weights):
            return f"a mask: only 0 and 1, beside '{other}'"
    return ""


def _is_binary(tensor: Tensor) -> bool:
    """Whether there are zeros and ones, and nothing else."""
    few = tensor.reshape(-1)[:256]
    if not bool(((few == 0) | (few == 1)).all()):
        return False
    zeros, ones = tensor == 0, tensor == 1
    return bool((zeros | ones).all()) and bool(zeros.any()) and bool(ones.any())


def _float_copy(name: str, arrays: _Arrays) -> str:
    last = _split(name)[1]
    stem = match[1] if (match := _FLOAT_COPY.fullmatch(last)) else None
    for other in arrays.siblings(name):
        word = _split(other)[1]
        if stem is not None and (word == stem or _is_quantised(word, stem)):
            return f"a float copy of '{other}'"
        if not arrays.tensors[other].is_floating_point() and _is_quantised(word, last):
            return f"a float copy of '{other}'"
    return ""


def _is_quantised(word: str, stem: str) -> bool:
    """Whether a name is that of the integers of ``stem``: ``weight_int8``, ``q_weight``."""
    before, found, after = word.partition(stem) if stem else ("", "", "")
    is_before = not before or re.fullmatch(r"(?:q|int|quant)_?", before) is not None
    is_after = not after or re.fullmatch(r"_?(?:q|quant|quantized|int\d*|uint8|int_repr)", after) is not None
    return bool(found) and word != stem and is_before and is_after


def _average(name: str, arrays: _Arrays) -> str:
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if _AVERAGE.fullmatch(part)), None)
    if at is None:
        return ""
    tail = parts[at + 1 :]
    if not tail:  # fc.weight_ema beside fc.weight
        bare = re.sub(r"_?(?:ema|averaged?|swa)_?|_?shadow_?", "", parts[-1], flags=re.IGNORECASE)
        other = ".".join([*parts[:-1], bare])
        is_there = other in arrays.tensors and arrays.tensors[other].shape == arrays.tensors[name].shape
        return f"an average of '{other}'" if is_there else ""
    while len(tail) > 1 and tail[0] in _WRAPPERS:
        tail = tail[1:]
    # Some averages are buffers, whose names have no dots. The last part alone ("weight") says nothing.
    of = arrays.by_end.get((arrays.tensors[name].shape, "".join(tail)))
    return "" if of is None else f"an average of '{of}'"


def _split(name: str) -> tuple[str, str]:
    """Return the module of an array, and its own name in there."""
    module, _, last = name.replace("/", ".").rpartition(".")
    return module, last


_TESTS: tuple[Callable[[str, _Arrays], str], ...] = (
    _optimizer,
    _average,
    _statistic,
    _constant,
    _mask,
    _float_copy,
    _state,
)

"""What all limits have in common: what they ask of a population, and whose matrices they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from qrsolve.problem.group import Group
from qrsolve.spec.demand import Demand
from qrsolve.spec.facts import Conflict, Count, Fact, refusal
from qrsolve.spec.layer_shape import LayerShape
from qrsolve.surface.words import did_you_mean, short

if TYPE_CHECKING:
    from torch import Tensor


Role = Literal["input", "recurrent", "output"]
"""What a matrix carries: what comes from outside, what the neurons send each other, or what is read from them."""
ROLES: tuple[Role, ...] = get_args(Role)


def _as_roles(value: object) -> object:
    """Take one role for a list of it, and refuse what is neither."""
    if value is None:
        return None
    words = list(value) if isinstance(value, list | tuple) else [value]
    for word in words:
        if word not in ROLES:
            hint = did_you_mean(word, ROLES)
            text = f"'of' has {short(str(word))}; needed {', '.join(ROLES)}, or a list of these{hint}"
            raise refusal(Conflict((), text))
    if not words or len(set(words)) < len(words):
        raise refusal(Conflict((), f"'of' is a list with {'a role twice' if words else 'nothing in it'}"))
    return tuple(words)


Roles = Annotated[
    tuple[Role, ...],
    BeforeValidator(_as_roles),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(ROLES)},
                {
                    "type": "array",
                    "items": {"type": "string", "enum": list(ROLES)},
                    "minItems": 1,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
"""One role or several."""


class LimitKind(Fact):
    """Base of all limits: something that the chip has only so many of."""

    unit: ClassVar[str] = ""
    """What is counted, where the word of the limit does not say it."""
    limits_reach: ClassVar[bool] = False
    """Whether it is about what inputs reach and outputs read, so that a matrix of unknown role is left alone."""
    is_packed: ClassVar[bool] = False
    """Whether weights are packed, so that what they take is more than a sum over parts (`packed_usage`)."""
    sums: ClassVar[Literal["neurons", "synapses"] | None] = None
    """What it is a total of, where some of these can be removed to fit it."""
    kind: str
    """The word by which users know the limit."""
    of: Roles | None = None
    """Whose matrices it is of: input, recurrent or output, or a list of these; of every matrix unless given."""

    @property
    def capacity(self) -> int:
        """How many there are to use."""
        raise NotImplementedError

    @property
    def allowance(self) -> str:
        """`capacity` in words, with what it comes from."""
        return f"{self.capacity:,}"

    def identity(self) -> tuple[str, ...]:
        """Return what no two limits of a chip may have in common."""
        stated = self.model_dump(include={"kind", "scope", "counts"}).values()
        return (*(str(value) for value in stated), *sorted(self.of or ()))

    def holds(self, role: Role | None) -> bool:
        """Return whether a matrix of this role, or of none that is known, is held to the limit."""
        if role is None:
            return not self.limits_reach
        return self.of is None or role in self.of

    def multiples(self) -> tuple[int, int] | None:
        """Return what the neurons and the sources of a matrix must be multiples of; ``None`` where of nothing."""
        return None

    def unreached(self, role: Role, shape: Sequence[int]) -> tuple[range, range] | None:
        """Return the neurons and the sources of a matrix between which there is nothing; ``None`` where all can be."""
        return None

    def text_of(self, role: Role) -> str:
        """Say what is asked of a matrix of a role, where the limit is about what it reaches; "" elsewhere."""
        return ""

    def not_enforced_for(self, names: Sequence[str]) -> str:
        """Return one sentence on why matrices whose role is not known are left alone; "" where they are held."""
        return ""

    def group(self) -> Group | None:
        """Return the capacities that the limit means for one population's matrix (neurons, sources), or ``None``."""
        return None

    def demand(self, layer: LayerShape) -> Demand:
        """Return what the limit asks of a population; its `group` alone unless shapes matter."""
        return Demand(self.group())

    @property
    def counted_per(self) -> str:
        """What it is counted in each of: its ``scope``; "" where it has none."""
        return str(getattr(self, "scope", ""))

    @property
    def frees_zeros(self) -> bool:
        """Whether it counts connections, and weights of 0 take nothing of it."""
        return getattr(self, "zeros", "") == "free"

    @property
    def stores_zeros(self) -> bool:
        """Whether it counts connections, and weights of 0 take as much of it as others."""
        return getattr(self, "zeros", "") == "stored"

    def is_shared(self) -> bool:
        """Whether layers share what there is: a network, its chips or its cores have it, and not each layer its own."""
        return False

    def core_sizes(self) -> tuple[int, ...]:
        """Return what each core of a chip has, one number where all have the same; () where cores have nothing."""
        return ()

    def packed_usage(self, layer: LayerShape, synapses: Sequence[Tensor]) -> int:
        """Return how many bits given weights take, where they are packed (``is_packed``).

        Parameters
        ----------
        layer : LayerShape
            The population.
        synapses : sequence of Tensor
            int64: the synapses of each weight, one array per matrix in its own shape.
        """
        raise NotImplementedError

    def not_enforced(self) -> str:
        """Return one sentence on why this version does not hold weights to the limit; "" where it does."""
        return ""

    def remark(self) -> str:
        """Return one sentence on how an enforced limit is taken where it leaves a choice; "" where it does not."""
        return ""


class CountedLimit(LimitKind):
    """Base of the limits that are a maximum, some of which may be reserved."""

    max: Count
    """How many there are."""
    reserved: Count = 0
    """How many of these are taken by something else, such as a monitor."""

    @property
    def capacity(self) -> int:
        """How many there are to use: ``max - reserved``."""
        return self.max - self.reserved

    @property
    def allowance(self) -> str:
        """`capacity` in words, with what is reserved."""
        return super().allowance + (f" ({self.max:,} less {self.reserved:,} reserved)" if self.reserved else "")

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.reserved > self.max:
            text = f"'reserved' is {self.reserved}, above 'max', which is {self.max}"
            raise refusal(Conflict(("reserved",), text))
        return self


def how_shared(limit: LimitKind, scope: str, *, is_divided: bool = False) -> str:
    """Say how a limit of more, or less, than a layer is held.

    Parameters
    ----------
    limit : LimitKind
        The limit.
    scope : str
        Who shares it.
    is_divided : bool
        Whether layers divide a total by what their weights save.
    """
    if scope in ("chip", "network") and is_divided:
        return f"{limit.kind}: the total of the {scope} is divided among the layers by what their weights save"
    if scope in ("chip", "network"):
        return f"{limit.kind}: each layer is held to the total of the {scope}, and all together too"
    return "" if scope == "layer" else f"{limit.kind}: scope {scope} is taken as the layer until a placement exists"


def require_largest(per_core: Sequence[int] | None, most: int) -> None:
    """Refuse cores of different sizes of which none is as large as ``max``, or some are larger."""
    if per_core is not None and max(per_core) != most:
        text = f"'per_core' has {max(per_core)} as its largest; 'max' is {most}, which has to be the same"
        raise refusal(Conflict(("per_core",), text))


def sizes_of_cores(limit: CountedLimit, per_core: Sequence[int] | None) -> tuple[int, ...]:
    """Return what each core has to use, less what is reserved in each."""
    return (limit.capacity,) if per_core is None else tuple(max(0, n - limit.reserved) for n in per_core)

"""What every part of a chip file has in common: strict types, a source, a confidence, and clear refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Path = tuple[str | int, ...]
"""Field names and list positions that lead to a part of a file."""
Confidence = Literal["read", "quoted", "derived", "unverified"]
Count = Annotated[int, Field(ge=0, le=10**12)]
PositiveCount = Annotated[int, Field(ge=1, le=10**12)]
PositiveNumber = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A map of a chip file: no unknown fields, no conversions (``true`` is not 1), no NaN or inf, never changed."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Fact(Part):
    """A part that states numbers, so it says where they come from and how sure they are."""

    source: Text | None = None
    """Name of an entry of `sources`."""
    confidence: Confidence = "unverified"
    """read: in the source itself; quoted: in somebody's quotation of it; derived: computed from such; unverified."""
    note: str = ""
    """What the number leaves unsaid: conflicts between sources, how it is counted."""

    def facts(self, path: Path = ()) -> Iterator[tuple[Path, Fact]]:
        """Go through this part and all parts inside it that have sources of their own, each with its path."""
        yield path, self
        for name, value in self:
            if isinstance(value, Fact):
                yield from value.facts((*path, name))


@dataclass(frozen=True)
class Conflict:
    """Fields that are fine one by one but impossible together; ``path`` leads from the part to the field to change."""

    path: Path
    text: str


def refusal(*conflicts: Conflict) -> PydanticCustomError:
    """Return the error that a validator raises for impossible fields; `load_spec` adds file and line to each."""
    text = "; ".join(conflict.text for conflict in conflicts)
    return PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": conflicts})

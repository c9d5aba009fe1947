"""What a check found: one row per limit with its worst place, by population and for the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qrsolve.audit.energy import Energy
from qrsolve.plan.limit_row import LimitRow
from qrsolve.plan.undecided import Undecided
from qrsolve.surface.shown import Shown, n_of, some


@dataclass(frozen=True, repr=False)
class LayerReport(Shown):
    """What one population's weights use.

    Parameters
    ----------
    rows : tuple of LimitRow
        One per limit, and one for the values.
    values : dict of str to list of float
        The parameters that explain the weights, by their names in the chip's file, one number per scope; empty where
        there are none.
    values_from : {"chip", "given", "weights", ""}
        The chip's file; parameters that the caller gave; recovered from the weights alone; or no values.
    types : tuple of int
        The type of each source, by its place among the names of ``values``; empty where sources have none, or none
        that explain the weights.
    tensors : dict of str to str
        What each tensor was taken for: ``40 neurons x 128 sources``.
    """

    rows: tuple[LimitRow, ...]
    values: dict[str, list[float]] = field(default_factory=dict)
    values_from: str = ""
    types: tuple[int, ...] = ()
    tensors: dict[str, str] = field(default_factory=dict)

    @property
    def is_compliant(self) -> bool:
        """Whether no limit is exceeded."""
        return all(row.excess == 0 for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "compliant": self.is_compliant,
            "tensors": self.tensors,
            "limits": [row.to_dict() for row in self.rows],
            "values": self.values,
            "values_from": self.values_from,
            **({"types": list(self.types)} if self.types else {}),
        }

    def _facts(self) -> str:
        over = [row.kind for row in self.rows if row.excess]
        return f"violated: {some(over)}" if over else f"compliant, {n_of(len(self.rows), 'limit')}"


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """What weights use of a chip.

    Parameters
    ----------
    layers : dict of str to LayerReport
        By population.
    network : tuple of LimitRow
        Limits that all populations share.
    not_enforced, remarks : tuple of str
        As in the plan: what was not checked, and how what was checked is taken.
    energy : Energy
        The synapses and their memory.
    undecided : tuple of Undecided
        Rules that could not be decided.
    left_out : dict of str to str
        Tensors that no rule was held to, each with the reason.
    """

    layers: dict[str, LayerReport]
    network: tuple[LimitRow, ...]
    not_enforced: tuple[str, ...]
    remarks: tuple[str, ...]
    energy: Energy
    undecided: tuple[Undecided, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def is_compliant(self) -> bool:
        """Whether no decided rule is violated anywhere."""
        return not self.violations

    @property
    def not_decided(self) -> tuple[Undecided, ...]:
        """What could not be decided: rules, and the tensors that no rule was held to."""
        return (*self.undecided, *(Undecided("left_out", f"'{n}': {why}") for n, why in self.left_out.items()))

    @property
    def rows(self) -> tuple[LimitRow, ...]:
        """All rows, layer by layer, then those of the network."""
        return (*(row for layer in self.layers.values() for row in layer.rows), *self.network)

    @property
    def violations(self) -> tuple[LimitRow, ...]:
        """The rows that exceed their limit."""
        return tuple(row for row in self.rows if row.excess > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values: the object that ``qrsolve check --json`` prints."""
        return {
            "compliant": self.is_compliant,
            "not_decided": [rule.to_dict() for rule in self.not_decided],
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "network": {"limits": [row.to_dict() for row in self.network]},
            "left_out": self.left_out,
            "not_enforced": list(self.not_enforced),
            "remarks": list(self.remarks),
            "energy": self.energy.to_dict(),
        }

    def _facts(self) -> str:
        n = len(self.violations)
        verdict = f"{n_of(n, 'violation')}: {some([row.kind for row in self.violations])}" if n else "compliant"
        open_rules = some(list(dict.fromkeys(rule.rule for rule in self.not_decided)))
        return f"{verdict}; {n_of(len(self.layers), 'layer')}{f'; not decided: {open_rules}' * bool(open_rules)}"

"""Tables of trainings and sweeps; those of results are in `qrsolve.report.tables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from qrsolve.report.rows import Rows
from qrsolve.report.tables import projections_page

if TYPE_CHECKING:
    from qrsolve.lab.in_integers import InIntegers
    from qrsolve.lab.run import Training


def training_page(training: Training, folder: str) -> Group:
    """Set the accuracy under the chip beside the dense one, and list the projections."""
    table = Rows(("network", "test accuracy"))
    table.add("dense", f"{100 * training.dense_accuracy:.2f} %")
    table.add("on the chip", f"{100 * training.accuracy:.2f} %")
    _add_integers(table, training.integers)
    written = Text(f"{training.seconds:.0f} seconds of training; model, metrics and picture are in {folder}")
    energy = (Text(f"dense: {training.dense_energy.text()}"), Text(f"on the chip: {training.energy.text()}"))
    return Group(table, *energy, projections_page(training.projections), written)


def integers_page(found: InIntegers) -> Group:
    """Set the accuracy in the chip's integers beside that in floats, or say why nothing was simulated."""
    if found.in_floats is None:
        return Group(Text(f"not simulated in integers: {found.reason}"))
    table = Rows(("network", "test accuracy"))
    table.add("projected, in floats", f"{100 * found.in_floats:.2f} %")
    _add_integers(table, found)
    return Group(table)


def _add_integers(table: Rows, found: InIntegers) -> None:
    if found.accuracy is not None and found.agreement is not None:
        alike = f"the same answer for {100 * found.agreement:.2f} %"
        table.add("in the chip's integers", f"{100 * found.accuracy:.2f} %, {alike}")


def accuracies_page(accuracies: Mapping[str, float]) -> Group:
    """List the accuracy of each way to deploy a network, all layers by the same way."""
    table = Rows(("all layers", "test accuracy"))
    for way, accuracy in accuracies.items():
        table.add(way, f"{100 * accuracy:.2f} %")
    return Group(table)


def statistics_page(found: Mapping[str, Any]) -> Group:
    """List what statistics are of."""
    table = Rows(("population", "samples", "sources", "moments"))
    for name, facts in found["populations"].items():
        table.add(name, *(f"{facts[key]:,}" for key in ("samples", "sources", "moments")))
    return Group(table, *(Text(f"remark: {text}") for text in found["remarks"]), Text(f"written: {found['output']}"))


def sweep_page(summary: Sequence[Mapping[str, Any]], folder: str) -> Group:
    """List accuracies over the seeds, one row per combination of settings and method."""
    names = list(summary[0]["settings"])
    shown = (*names, "method", "seeds", "mean", "min", "max", "dense", "compliant")
    table = Rows(shown, titles=("method",))
    for row in summary:
        shares = [f"{100 * row[key]:.2f} %" for key in ("mean", "min", "max", "dense_mean")]
        compliant = "yes" if row["compliant"] else "no"
        values = [str(row["settings"][name]) for name in names]
        table.add(*values, row["method"], str(row["seeds"]), *shares, compliant)
    return Group(table, Text(f"runs, tables and picture are in {folder}"))

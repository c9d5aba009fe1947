"""What came out of a sweep: one row per run, a summary over seeds, the lines of the picture."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from csv import writer as csv_writer
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qrsolve.spec import HardwareSpec, Setting
from qrsolve.spec.override import Scalar, spelled

TABLE_JSON, TABLE_CSV, PICTURE_FILE = "table.json", "table.csv", "accuracy.png"
Record = dict[str, Any]
"""What the file of a finished run holds."""


@dataclass(frozen=True)
class Sweep:
    """A finished sweep.

    Parameters
    ----------
    spec : HardwareSpec
        The chip without settings.
    settings : tuple of Setting
        What was swept.
    records : tuple of dict
        The contents of the runs' files, in the order of settings, methods, seeds.
    n_trained : int
        How many of them were trained now; the others were there before.
    folder : Path
        Where everything is.
    """

    spec: HardwareSpec
    settings: tuple[Setting, ...]
    records: tuple[Record, ...]
    n_trained: int
    folder: Path

    @property
    def is_compliant(self) -> bool:
        """Whether every run's network fits its chip."""
        return all(record["compliant"] for record in self.records)

    def summary(self) -> list[Record]:
        """Return mean, least and greatest accuracy over the seeds, one entry per combination of settings and method."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(json.dumps([record["settings"], record["method"]]), []).append(record)
        return [_summarised(group) for group in groups.values()]

    @property
    def dense_accuracy(self) -> float:
        """Mean accuracy without the chip's limits."""
        return sum(float(record["dense_accuracy"]) for record in self.records) / len(self.records)

    @property
    def swept(self) -> str:
        """The setting along the picture: the first of several numbers, else the first of several values; or ""."""
        several = [setting for setting in self.settings if len(setting.values) > 1]
        numbers = [setting for setting in several if all(_is_number(value) for value in setting.values)]
        return next((setting.name for setting in (*numbers, *several, *self.settings)), "")

    def curves(self) -> dict[str, dict[float | str, list[float]]]:
        """Return the accuracies of all seeds by line and swept value; one line per method and other settings."""
        several = {setting.name for setting in self.settings if len(setting.values) > 1}
        curves: dict[str, dict[float | str, list[float]]] = {}
        for record in self.records:
            others = {name: value for name, value in record["settings"].items() if name in several - {self.swept}}
            line = ", ".join([record["method"], *assignments(others)])
            value = record["settings"].get(self.swept, record["spec"])
            at = value if _is_number(value) else spelled(value)
            curves.setdefault(line, {}).setdefault(at, []).append(record["accuracy"])
        return curves

    def table(self) -> Record:
        """Return the content of ``table.json``: the same for the same runs, whenever they were trained."""
        kept = ("key", "settings", "method", "seed", "accuracy", "dense_accuracy", "compliant", "seconds")
        common = {key: self.records[0][key] for key in ("spec", "data", "model", "mode", "epochs")}
        runs = [{key: record[key] for key in kept} for record in self.records]
        settings = {setting.name: list(setting.values) for setting in self.settings}
        return {**common, "settings": settings, "runs": runs, "summary": self.summary()}

    def csv(self) -> str:
        """Return one line per run: settings, method, seed, and what came out."""
        columns = ("method", "seed", "accuracy", "dense_accuracy", "compliant", "seconds", "key")
        text = io.StringIO()
        writer = csv_writer(text, lineterminator="\n")
        writer.writerow([*(setting.name for setting in self.settings), *columns])
        for record in self.records:
            values = [*record["settings"].values(), *(record[column] for column in columns)]
            writer.writerow([spelled(value) for value in values])
        return text.getvalue()

    def to_dict(self) -> Record:
        """Return the object that ``qrsolve sweep --json`` prints."""
        files = {"table": TABLE_JSON, "csv": TABLE_CSV, "plot": PICTURE_FILE}
        return {
            **self.table(),
            "compliant": self.is_compliant,
            "trained": self.n_trained,
            "reused": len(self.records) - self.n_trained,
            "output": str(self.folder),
            **{key: str(self.folder / name) for key, name in files.items()},
        }


def assignments(settings: Mapping[str, Scalar]) -> Iterator[str]:
    """Return ``name=value`` of each setting."""
    return (f"{name}={spelled(value)}" for name, value in settings.items())


def _summarised(group: Sequence[Record]) -> Record:
    accuracies = [record["accuracy"] for record in group]
    return {
        "settings": group[0]["settings"],
        "method": group[0]["method"],
        "seeds": len(group),
        "mean": sum(accuracies) / len(group),
        "min": min(accuracies),
        "max": max(accuracies),
        "dense_mean": sum(record["dense_accuracy"] for record in group) / len(group),
        "compliant": all(record["compliant"] for record in group),
    }


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""From a chip's name or file to a `HardwareSpec`, with file and line of every mistake."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path as FilePath

from pydantic import ValidationError

from qrsolve.errors import SpecError
from qrsolve.spec.document import DocumentError, parse_document
from qrsolve.spec.hardware import HardwareSpec
from qrsolve.spec.mistakes import Mistakes
from qrsolve.surface.endings import ENDINGS, ending_of
from qrsolve.surface.words import did_you_mean

PACKAGE = FilePath(__file__).resolve().parents[1]
ADDED = ("layers_per_core", "offers", "partial_sums", "per_core")
"""Fields that came after the first hashes were written; without one of them a chip's file says what it always said."""
MAX_BYTES = 2**20
"""The most that a chip file may have; a larger file is something else."""


def load_spec(name_or_path: str | os.PathLike[str] | HardwareSpec) -> HardwareSpec:
    """Read a chip: a bundled one by name, or any YAML file by path.

    Parameters
    ----------
    name_or_path : str, path or HardwareSpec
        A text with a folder or with the ending ``.yaml`` or ``.yml`` is a path; any other is a bundled
        chip's name. A chip that is loaded already is returned as it is.

    Returns
    -------
    HardwareSpec
        The validated chip.

    Raises
    ------
    SpecError
        No such chip or file, not YAML, or not the language; one line ``file:line: path: what came; what is needed`` per
        mistake, in the order of the file.
    """
    if isinstance(name_or_path, HardwareSpec):
        return name_or_path
    if not isinstance(name_or_path, str | os.PathLike):
        raise SpecError(_no_chip(name_or_path))
    shown = os.fspath(name_or_path)
    if ending_of(shown) in ENDINGS:
        raise SpecError(f"{shown}: a model's file; needed a chip: a name or a YAML file (SPEC before MODEL)")
    if isinstance(name_or_path, str) and _is_name(name_or_path):
        path = specs_folder(PACKAGE) / f"{name_or_path}.yaml"
        if name_or_path not in bundled_specs():
            raise SpecError(_unknown_name(name_or_path))
        shown = str(path)
    else:
        path = FilePath(shown)
    return parse_spec(read_text(path, shown), shown)


@lru_cache(maxsize=64)
def parse_spec(text: str, shown: str = "<text>") -> HardwareSpec:
    """Read a chip from YAML text; ``shown`` is the file name that errors give. Raises `SpecError` as `load_spec`.

    The same text gives the same chip, which nobody can change; reading it takes as long as a small projection.
    """
    try:
        document = parse_document(text)
    except DocumentError as error:
        raise SpecError(f"{shown}:{error.line}: {error}") from None
    if not isinstance(document.value, dict):
        raise SpecError(f"{shown}:{document.line(())}: {document.shown(())}; needed a map that starts with 'schema: 1'")
    if "layers" in document.value and "weights" not in document.value:
        line = document.line(("layers",))
        raise SpecError(f"{shown}:{line}: 'layers', and no 'weights': a network's file, it seems; give it as --network")
    try:
        return HardwareSpec.model_validate(document.value)
    except ValidationError as error:
        raise SpecError(Mistakes(document, shown).listed(error)) from None


def bundled_specs() -> tuple[str, ...]:
    """Return the names of the chips that come with qrsolve, sorted."""
    folder = specs_folder(PACKAGE)
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def specs_folder(package: FilePath) -> FilePath:
    """Return the folder of the bundled chips: inside the installed package, or beside it in a checkout.

    Raises
    ------
    SpecError
        It is in neither place: the installation is incomplete.
    """
    for folder in (package / "hardware_specs", package.parent / "hardware_specs"):
        if folder.is_dir():
            return folder
    raise SpecError(f"no folder hardware_specs in or beside {package}; install qrsolve again")


def spec_hash(spec: HardwareSpec) -> str:
    """Return the SHA-256 of everything the chip's file states of weights and limits, as 64 hexadecimal digits.

    The order of keys, comments and spelling (``1e2`` or ``100.0``) do not matter; defaults count as if written out.
    """
    # Of neurons nothing is said to weights: states and files from before a chip's file had them stay its own.
    stated = spec.model_dump(mode="json", by_alias=True, exclude={"neurons"})
    if spec.neurons is not None:
        held = {fact.source for path, fact in spec.facts() if path[0] != "neurons"}
        of_neurons = {fact.source for _, fact in spec.neurons.facts()} - held
        stated["sources"] = {name: text for name, text in stated["sources"].items() if name not in of_neurons}
    canonical = json.dumps(_without_added(stated), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _without_added(value: object) -> object:
    """Leave out fields that the language did not always have, where they say nothing: saved states keep their chip."""
    if isinstance(value, dict):
        return {
            key: _without_added(item) for key, item in value.items() if key not in ADDED or item not in (None, False)
        }
    return [_without_added(item) for item in value] if isinstance(value, list) else value


def _no_chip(value: object) -> str:
    """Say what came instead of a chip, and what is meant."""
    word = f"the class {value.__name__}" if isinstance(value, type) else f"a value of type {type(value).__name__}"
    came = f"{word} as the chip"
    if isinstance(getattr(value, "spec", None), HardwareSpec):
        return f"{came}; needed the chip itself: its .spec"
    if isinstance(value, Mapping) and "weights" in value and ("schema" in value or "limits" in value):
        return f"{came}; HardwareSpec.model_validate makes a chip of its fields"
    if isinstance(value, Mapping) or hasattr(value, "state_dict") or hasattr(value, "ndim"):
        return f"{came}; the chip comes first and the model second"
    return f"{came}; needed a bundled chip's name, a YAML file, or a HardwareSpec"


def _is_name(text: str) -> bool:
    return not text.endswith((".yaml", ".yml")) and not {"/", os.sep} & set(text)


def _unknown_name(name: str) -> str:
    known = bundled_specs()
    spelled = name.lower().replace("-", "_").replace(" ", "_")
    hint = did_you_mean(spelled, known) or f"; known: {', '.join(known)}"
    return f"no chip is called '{name}'; a file of your own needs its ending, as in '{name}.yaml'{hint}"


def read_text(path: FilePath, shown: str) -> str:
    """Return the text of a YAML file; `SpecError` where there is none or it is no text."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise SpecError(f"{shown}: no such file{did_you_mean(path.name, near)}") from None
    except IsADirectoryError:
        raise SpecError(f"{shown}: a folder; needed a YAML file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError(f"{shown}: cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise SpecError(f"{shown}: too large; a chip file has at most {MAX_BYTES:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{shown}:{line}: not text in UTF-8: byte 0x{data[error.start]:02x}") from None

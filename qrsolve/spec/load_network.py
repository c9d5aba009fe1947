"""From a network's file to a `NetworkSpec`, with file and line of every mistake."""

from __future__ import annotations

import os
from pathlib import Path as FilePath

from pydantic import ValidationError

from qrsolve.errors import SpecError
from qrsolve.spec.document import DocumentError, parse_document
from qrsolve.spec.load import read_text
from qrsolve.spec.mistakes import Mistakes
from qrsolve.spec.network import NetworkSpec
from qrsolve.spec.schema import network_schema
from qrsolve.surface.endings import ENDINGS, ending_of


def load_network(path: str | os.PathLike[str] | NetworkSpec) -> NetworkSpec:
    """Read a network's file.

    Parameters
    ----------
    path : str, path or NetworkSpec
        A YAML file; a network that is loaded already is returned as it is.

    Raises
    ------
    SpecError
        No such file, not YAML, or not the language; one line ``file:line: part: what came; what is needed`` per
        mistake.
    """
    if isinstance(path, NetworkSpec):
        return path
    if not isinstance(path, str | os.PathLike):
        of = ": its .network" if isinstance(getattr(path, "network", None), NetworkSpec) else ", or its file"
        raise SpecError(f"a value of type {type(path).__name__} as a network; needed a NetworkSpec{of}")
    shown = os.fspath(path)
    if ending_of(shown) in ENDINGS:
        raise SpecError(f"{shown}: a model's file; needed a network's, in YAML (qrsolve describe {shown} writes one)")
    return parse_network(read_text(FilePath(shown), shown), shown)


def parse_network(text: str, shown: str = "<text>") -> NetworkSpec:
    """Read a network from YAML text; ``shown`` is the file name that errors give. Raises `SpecError` as above."""
    try:
        document = parse_document(text)
    except DocumentError as error:
        raise SpecError(f"{shown}:{error.line}: {error}") from None
    value = document.value
    if not isinstance(value, dict):
        raise SpecError(f"{shown}:{document.line(())}: {document.shown(())}; needed a map that starts with 'schema: 1'")
    if "weights" in value and "layers" not in value:
        raise SpecError(f"{shown}: a chip's file; needed a network's, which has 'layers' (see qrsolve describe)")
    try:
        network = NetworkSpec.model_validate(value)
    except ValidationError as error:
        raise SpecError(Mistakes(document, shown, network_schema()).listed(error)) from None
    return network.located(document.lines, shown)

"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from qrsolve.errors import QRSolveError


class OutputError(QRSolveError):
    """A file cannot be written; what was there before is untouched."""


def require_writable(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Say before any work that an output could not be written.

    Parameters
    ----------
    path : str or path
        The file to write.
    force : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The file itself, behind any symbolic link.

    Raises
    ------
    OutputError
        The file exists and ``force`` is not set, it is a folder, or its folder does not exist or cannot be written to.
    """
    shown = os.fspath(path)
    try:
        target = Path(os.path.realpath(shown))
        if target.is_dir():
            raise OutputError(f"{shown}: a folder; needed a file name")
        if not target.parent.is_dir():
            raise OutputError(f"{shown}: no folder {Path(shown).parent}; make it first")
        if target.exists() and not force:
            raise OutputError(f"{shown}: exists already; give --force to replace it, or another name")
    except (OSError, ValueError) as error:
        raise OutputError(f"{shown}: cannot be written: {_reason(error)}") from None
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{shown}: the folder {Path(shown).parent} is not writable")
    return target


def write_file(path: str | os.PathLike[str], data: bytes, *, force: bool = False) -> None:
    """Write ``data`` under a temporary name in the same folder, then rename it.

    So the file is there whole or not at all, and an old one stays whole until the new one is.

    Parameters
    ----------
    path : str or path
        The file to write.
    data : bytes
        Its content.
    force : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        As `require_writable`, or the disk is full or fails; no temporary file is left.
    """
    target = require_writable(path, force=force)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        kept = "the old file is untouched" if target.exists() else "nothing was written"
        raise OutputError(f"{os.fspath(path)}: cannot be written: {_reason(error)}; {kept}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)

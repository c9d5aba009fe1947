"""What a limit asks of one layer before its weights are known."""

from __future__ import annotations

from dataclasses import dataclass

from qrsolve.problem.group import Group


@dataclass(frozen=True)
class Demand:
    """What a layer has of a limit, and takes of it whatever its weights are.

    Parameters
    ----------
    group : Group or None
        The capacities that hold its weights; ``None`` where weights decide nothing.
    usage : int or None
        How many it takes; ``None`` where weights decide.
    least : int or None
        How many it takes at the least; ``None`` where that is not known.
    spread : int or None
        How many it takes of all cores together, where it may lie in several; ``None`` elsewhere.
    by_processor : tuple of int
        How many it takes of each processor, of which the fullest counts; empty where there are none.
    of_neurons : bool
        Whether ``usage`` is about its neurons, whatever their sources.
    missing : str
        One sentence on what has to be known to count ``usage``; "" where nothing is missing.
    is_whole : bool
        Whether all that it takes is known; else it is at least what is counted.
    remark : str
        One sentence on what the limit costs it beyond what the chip asks; "" where nothing.
    """

    group: Group | None = None
    usage: int | None = None
    least: int | None = None
    spread: int | None = None
    by_processor: tuple[int, ...] = ()
    of_neurons: bool = False
    missing: str = ""
    is_whole: bool = True
    remark: str = ""

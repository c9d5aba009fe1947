"""Options that several commands share: what they are called, how they are completed, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated

import typer

from qrsolve.cli.catalogue import DATA_SETS, HEURISTICS, METHODS, MODES, NETWORKS, SOLVERS
from qrsolve.errors import ShapeError
from qrsolve.spec import ROLES, bundled_specs

Completion = Callable[[str], list[tuple[str, str]]]


def _completion(*lists: Mapping[str, str]) -> Completion:
    """Complete the names of these lists, with what they are."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        return [entry for listed in lists for entry in listed.items() if entry[0].startswith(incomplete)]

    return complete


def _complete_chip(incomplete: str) -> list[str]:
    return [name for name in bundled_specs() if name.startswith(incomplete)]


def _words(names: Iterable[str]) -> str:
    return "|".join(names)


SpecArgument = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="A bundled chip's name, or a YAML file.", autocompletion=_complete_chip),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A .npz, .safetensors, .pt, .pth, .ckpt or .pth.tar file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; errors are one on stderr.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
LayerOption = Annotated[
    list[str] | None, typer.Option("--layer", metavar="NAME", help="Only this array, or :regex found in names; repeat.")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="NAME", help="Leave this array out, or :regex found in names; repeat."),
]
NetworkOption = Annotated[
    str | None,
    typer.Option("--network", metavar="FILE", help="How the tensors are wired (qrsolve describe writes one)."),
]
EntryOption = Annotated[
    str | None, typer.Option("--entry", metavar="NAME", help="The entry of a checkpoint that holds the weights.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit 1 also where a rule could not be decided.")]
GroupOption = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="NAME,NAME", help="Arrays whose rows are the same neurons (input and recurrent)."),
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="NAME=ROLE", help="What an array is: input, recurrent or output; repeat."),
]
SolverOption = Annotated[
    str,
    typer.Option(
        "--solver",
        metavar="auto|NAME",
        help="Use this solver or fail; auto takes the first that does not refuse.",
        autocompletion=_completion({"auto": "The first that does not refuse."}, SOLVERS, HEURISTICS),
    ),
]
DataOption = Annotated[
    str,
    typer.Option("--data", metavar=_words(DATA_SETS), help="What to learn.", autocompletion=_completion(DATA_SETS)),
]
DataDirOption = Annotated[str | None, typer.Option("--data-dir", metavar="DIR", help="Where the data set's files are.")]
StatisticsOption = Annotated[
    str | None,
    typer.Option("--statistics", metavar="FILE", help="Of qrsolve calibrate: lose little of the outputs instead."),
]
DtOption = Annotated[
    float | None,
    typer.Option(
        "--dt", min=1e-9, metavar="SECONDS", help="One step, with which the neurons of a NIR graph are coded."
    ),
]
FoldNormsOption = Annotated[
    bool,
    typer.Option(
        "--fold-norms/--no-fold-norms",
        help="Fold batch norms halfway, where the chip has no scale for each neuron; else they stay beside the chip.",
    ),
]
NetworkKindOption = Annotated[
    str,
    typer.Option(
        "--model", metavar=_words(NETWORKS), help="The network to train.", autocompletion=_completion(NETWORKS)
    ),
]
MethodOption = Annotated[
    str,
    typer.Option("--method", metavar="M", help="How latent weights move.", autocompletion=_completion(METHODS)),
]
MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method", metavar="M,...", help="How latent weights move; repeat.", autocompletion=_completion(METHODS)
    ),
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, metavar="N", help="Passes over the data; the data set's default.")
]
CompliantOption = Annotated[
    str,
    typer.Option(
        "--compliant",
        metavar=_words(MODES),
        help="Deployable at every step, or at the end.",
        autocompletion=_completion(MODES),
    ),
]
KeepNormOption = Annotated[
    bool,
    typer.Option(
        "--keep-norm/--no-keep-norm",
        help="Scale fresh weights so that what a fan-in leaves of them keeps the norm of all.",
    ),
]
CentreOption = Annotated[
    bool, typer.Option("--centre/--no-centre", help="Let biases absorb what inputs add up to on average.")
]
WeighInputsOption = Annotated[
    bool,
    typer.Option("--weigh-inputs/--no-weigh-inputs", help="Weigh each weight by the spread of its input."),
]


def parsed_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``NAME=ROWSxCOLS[xK...]``; `ShapeError` says what was needed."""
    match = re.fullmatch(r"(.+)=(\d{1,9}(?:x\d{1,9})+)", text)
    if match is None:
        raise ShapeError(f"--shape: '{text}'; needed NAME=ROWSxCOLS, as in fc1=256x784 or conv1=32x16x3x3")
    return match[1], tuple(int(n) for n in match[2].split("x"))


def parsed_groups(texts: Sequence[str] | None) -> list[list[str]]:
    """Read ``NAME,NAME`` of each --group; `ShapeError` says what was needed."""
    groups = [[name.strip() for name in text.split(",")] for text in texts or []]
    for group, text in zip(groups, texts or [], strict=True):
        if len(group) < 2 or not all(group):
            raise ShapeError(f"--group: '{text}'; needed two or more names with commas between them")
    return groups


def parsed_roles(texts: Sequence[str] | None) -> dict[str, str]:
    """Read ``NAME=ROLE`` of each --role; `ShapeError` says what was needed."""
    roles: dict[str, str] = {}
    for text in texts or []:
        name, _, role = text.rpartition("=")
        if not name or not role:
            raise ShapeError(f"--role: '{text}'; needed NAME=ROLE, as in w_in=input; roles are {', '.join(ROLES)}")
        if roles.setdefault(name, role) != role:
            raise ShapeError(f"--role: '{name}' is {roles[name]} and {role}; needed one role")
    return roles

"""Describe a network by the names and shapes of its tensors, as state dicts and other files hold them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from qrsolve.compile import require_groups
from qrsolve.description import CURE, Description, Guess
from qrsolve.errors import ModelError
from qrsolve.roles import known_roles
from qrsolve.spec.layout import layout_of
from qrsolve.spec.limit_kind import Role
from qrsolve.spec.network import Layer, NetworkSpec

Shape = tuple[int, ...]
_TORCH = re.compile(r"^weight_(?P<way>ih|hh|hr)(?P<end>(_l\d+)?(_reverse)?)$")
_RECURRENT = re.compile(
    r"(^|[._])(rec|recurrent|w_?rec|w_?hh|lateral|recurrent_weights|rec_connect|weight_rec)($|[._\d])"
)
_TRANSPOSED = re.compile(r"(^|[._])(up|upconv|deconv|transpose[d]?|conv_?transpose\w*|convt)\d*($|[._])", re.IGNORECASE)
_EMBEDDING = re.compile(r"(^|[._])(embed\w*|emb|wte|wpe|token_\w+|position\w*)\d*($|[._])", re.IGNORECASE)


@dataclass
class _Found:
    """One tensor with what is known of it so far."""

    name: str
    shape: Shape
    stated: dict[str, object]
    bias: int | None
    is_sure: bool = False

    @property
    def prefix(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    def layer(self) -> Layer:
        return Layer.model_validate({"tensor": self.name, **self.stated})

    def rows(self) -> Shape:
        return layout_of(self.layer(), self.shape).rows_shape


def describe_tensors(
    shapes: Mapping[str, Sequence[int]],
    vectors: Mapping[str, int] | None = None,
    left_out: Mapping[str, str] | None = None,
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    selected: Sequence[str] = (),
) -> Description:
    """Describe a network by the names and shapes of its tensors.

    Parameters
    ----------
    shapes : mapping of str to sequence of int
        The afferent matrices, in the order of the file.
    vectors : mapping of str to int, or None
        Length of each array of one dimension: biases tell which axis is the neurons'.
    left_out : mapping of str to str, or None
        Other arrays, each with the reason why it is none.
    groups : sequence of sequences of str
        Matrices that share a population, as the user says; nothing is guessed of these.
    roles : mapping of str to str, or None
        What matrices are, as the user says.
    selected : sequence of str
        Names that the user asks for: these are not left out by what their names look like.

    Returns
    -------
    Description
        With every guess.

    Raises
    ------
    ModelError
        The sizes of the layers fit each other only if they are stored inputs x outputs: which axis is the neurons' is
        a question to the user.

    Notes
    -----
    Names of torch's, Norse's, snnTorch's and sinabs' recurrent layers tell populations. A bias tells the axis of the
    neurons; else the sizes of layers that follow each other do.
    """
    known, out = dict(vectors or {}), dict(left_out or {})
    asked_for = {*(roles or {}), *selected, *(name for group in groups for name in group)}
    found: list[_Found] = []
    for name, shape in shapes.items():
        own = tuple(int(n) for n in shape)
        one = _Found(name, own, {}, _bias_of(name, known))
        if _EMBEDDING.search(one.prefix) and one.bias is None and len(own) == 2 and name not in asked_for:
            out[name] = "by its name an embedding, a table that stays on the host; kind embedding takes it"
            continue
        found.append(one)
    guesses: list[Guess] = []
    for one in found:
        guesses += _kind_and_axis(one)
    guesses += _open_axes(found)
    found += _one_to_one(found, known, out)
    guesses += _populations(found, groups, roles or {}, known)
    guesses += _feeds(found)
    layers = [one.layer() for one in found]
    layers += [Layer(tensor=name, left_out=why) for name, why in out.items()]
    network = NetworkSpec.model_construct(schema_version=1, layers=tuple(layers), signs={})
    return Description(network, {one.name: one.shape for one in found}, tuple(guesses))


def _bias_of(name: str, vectors: Mapping[str, int]) -> int | None:
    """Return the length of the bias beside a weight; ``None`` where there is none."""
    prefix, _, leaf = name.rpartition(".")
    start = f"{prefix}." if prefix else ""
    for word in ("weight", "kernel", "w", "W"):
        if leaf == word or (leaf.startswith("weight_") and word == "weight") or leaf.endswith(f"_{word}"):
            for bias in ("bias", "b", "B"):
                if (n := vectors.get(start + leaf.replace(word, bias))) is not None:
                    return n
    return None


def _kind_and_axis(one: _Found) -> list[Guess]:
    """State what the name and the bias of a tensor tell."""
    if _TORCH.match(one.leaf) or one.leaf in ("input_weights", "recurrent_weights"):
        one.is_sure = True
    elif one.leaf == "in_proj_weight":
        one.stated["kind"], one.is_sure = "attention", True
    elif len(one.shape) == 2:
        _axis_by_bias(one)
    else:
        _convolution_by_bias(one)
        if not one.is_sure:
            return [_guessed_convolution(one)]
    return []


def _axis_by_bias(one: _Found) -> None:
    if one.bias is not None and one.shape[0] != one.shape[1] and one.bias in one.shape:
        one.is_sure = True
        if one.bias == one.shape[1]:
            one.stated.update(kind="linear", neurons_axis=1)


def _convolution_by_bias(one: _Found) -> None:
    """Tell a convolution, a transposed one and one stored (*kernel, channels, filters) by the length of the bias."""
    one.stated["kind"] = "conv"
    if one.bias is None:
        return
    first, second, last = one.shape[0], one.shape[1], one.shape[-1]
    if one.bias == first:
        one.is_sure = first != second
    elif one.bias == last and last != second:
        one.stated["neurons_axis"], one.is_sure = len(one.shape) - 1, True
    elif second and one.bias % second == 0 and first % max(1, one.bias // second) == 0:
        one.stated.update(kind="conv_transpose", groups=one.bias // second)
        one.is_sure = True


def _guessed_convolution(one: _Found) -> Guess:
    if _TRANSPOSED.search(one.prefix):
        one.stated["kind"] = "conv_transpose"
        return Guess("kinds", one.name, "taken as a transposed convolution by its name")
    return Guess("kinds", one.name, "taken as a convolution stored (filters, channels, *kernel)")


def _open_axes(found: Sequence[_Found]) -> list[Guess]:
    """Let the sizes of layers that follow each other decide what no bias tells."""
    flat = [one for one in found if len(one.shape) == 2]
    open_ = [one for one in flat if not one.is_sure and not _RECURRENT.search(one.name)]
    undecided = [one for one in open_ if one.shape[0] != one.shape[1]]
    if not undecided:
        return []
    in_order = [one for one in flat if not _is_recurrent(one)]
    first, last = _fits(in_order, 0), _fits(in_order, 1)
    n_pairs = len(in_order) - 1
    if n_pairs > 0 and first == n_pairs:
        return []
    is_clear = any(min(abs(a.shape[0] - a.shape[1]), abs(b.shape[0] - b.shape[1])) for a, b in pairwise(in_order))
    if is_clear and last == n_pairs:
        names = ", ".join(f"'{one.name}' {one.shape}" for one in undecided[:4])
        raise ModelError(
            f"{names}: neurons first or last? The sizes follow each other only if the neurons are last (inputs x "
            f"outputs): state neurons_axis: 1, or 0 if they are first; {CURE}"
        )
    return [Guess("axes", one.name, "taken as (neurons, sources), torch's way") for one in undecided]


def _fits(layers: Sequence[_Found], axis: int) -> int:
    """Count the layers whose sources are as many as the neurons of the one before, all stored with this axis first."""

    def sizes(one: _Found) -> tuple[int, int]:
        mine = int(str(one.stated.get("neurons_axis", 0))) if one.is_sure else axis
        return one.shape[mine], one.shape[1 - mine]

    return sum(sizes(after)[1] == sizes(before)[0] for before, after in pairwise(layers))


def _is_recurrent(one: _Found) -> bool:
    return bool(_RECURRENT.search(one.name)) or one.leaf.startswith("weight_hh")


def _one_to_one(found: Sequence[_Found], vectors: Mapping[str, int], out: dict[str, str]) -> list[_Found]:
    """Return snnTorch's one-to-one recurrent weights: a vector ``V`` beside the neuron's own parameters."""
    taken = []
    for name, n in vectors.items():
        prefix, _, leaf = name.rpartition(".")
        if leaf != "V" or not {f"{prefix}.beta", f"{prefix}.threshold"} & set(vectors):
            continue
        if n < 2:
            out[name] = "one number shared by all neurons; each neuron has 1 more source, which fan_in does not count"
            continue
        before = [one for one in found if one.rows()[0] == n]
        if before:
            stated: dict[str, object] = {"kind": "one_to_one", "role": "recurrent", "population": before[-1].prefix}
            before[-1].stated.setdefault("population", before[-1].prefix)
            taken.append(_Found(name, (n,), stated, None, is_sure=True))
    return taken


def _populations(
    found: Sequence[_Found], groups: Sequence[Sequence[str]], roles: Mapping[str, str], vectors: Mapping[str, int]
) -> list[Guess]:
    """State which matrices share a population: as the user says, as names tell, and what is left as a guess."""
    by_name = {one.name: one for one in found}
    known_roles(tuple(by_name), roles)
    require_groups({one.name: one.rows() for one in found}, groups)
    given = {name for group in groups for name in group}
    for group in groups:
        for name in group:
            by_name[name].stated["population"] = "+".join(group)
    for name, role in roles.items():
        by_name[name].stated["role"] = role
    guesses: list[Guess] = []
    for i, one in enumerate(found):
        if one.name in given or one.stated.get("kind") == "one_to_one":
            continue
        match = _TORCH.match(one.leaf)
        if match is not None and match["way"] != "hr":
            own = f"{one.prefix}{match['end']}".lstrip("_") or "rnn"
            _join(one, own, "recurrent" if match["way"] == "hh" else None)
        elif one.leaf in ("input_weights", "recurrent_weights"):
            _join(one, one.prefix or "rnn", "recurrent" if one.leaf == "recurrent_weights" else None)
        elif _RECURRENT.search(one.name) and one.rows()[0] == prod(one.rows()[1:]):
            guesses += _recurrent_by_name(one, found, given, vectors)
        elif len(one.shape) == 2 and one.shape[0] == one.shape[1]:
            others = [f"'{o.name}'" for o in found[:i] if len(o.shape) == 2 and o.rows()[0] == one.shape[0]]
            if others and "population" not in one.stated:
                text = f"square, so it may be the recurrent weights of {others[-1]}; taken as a population of its own"
                guesses.append(Guess("populations", one.name, text))
    return guesses


def _join(one: _Found, population: str, role: Role | None) -> None:
    one.stated.setdefault("population", population)
    if role is not None:
        one.stated.setdefault("role", role)


def _recurrent_by_name(
    one: _Found, found: Sequence[_Found], given: Collection[str], vectors: Mapping[str, int]
) -> list[Guess]:
    """Join recurrent weights with the input weights of the same neurons: those before them in the file."""
    one.stated.setdefault("role", "recurrent")
    n, position = one.rows()[0], list(found).index(one)
    inputs = [o for o in found if o is not one and o.name not in given and o.rows()[0] == n and not _is_recurrent(o)]
    free = [o for o in inputs if "population" not in o.stated]
    if not free:
        return [Guess("populations", one.name, "recurrent by its name, of neurons that no other matrix drives")]
    sibling = [o for o in free if _stem(o.name) == _stem(one.name)]
    before = [o for o in free if list(found).index(o) < position]
    chosen = (sibling or before[-1:] or free)[0]
    name = _stem(one.name) or chosen.prefix or chosen.name
    chosen.stated["population"], one.stated["population"] = name, name
    owner = one.prefix.rpartition(".")[0]
    is_certain = len(free) == 1 and bool({f"{owner}.beta", f"{owner}.threshold"} & set(vectors))
    if is_certain:
        return []
    text = f"recurrent by its name, and of the neurons of '{chosen.name}'"
    return [Guess("populations", one.name, text)]


def _stem(name: str) -> str:
    """Return what is before the last word that tells input from recurrent: ``a.w_rec.weight`` is of ``a``."""
    parts = [part for part in name.split(".") if part not in ("weight", "kernel")]
    return ".".join(parts[:-1])


def _feeds(found: Sequence[_Found]) -> list[Guess]:
    """Guess by order and size which population feeds each matrix: the one before, if it fits."""
    guesses: list[Guess] = []
    before: _Found | None = None
    for one in found:
        if one.stated.get("role") == "recurrent" or one.stated.get("kind") == "one_to_one":
            continue
        rows = one.rows()
        if before is not None and "fed_by" not in one.stated:
            n, is_map = before.rows()[0], bool(before.rows()[2:])
            guesses += _groups(one, n if is_map else 0)
            sources = layout_of(one.layer(), one.shape).n_sources if rows[2:] else prod(rows[1:])
            fits = sources == n or (is_map and not rows[2:] and sources % n == 0)
            if fits and n:
                one.stated["fed_by"] = before.stated.get("population", before.name)
                guesses.append(Guess("feeds", one.name, f"fed by '{one.stated['fed_by']}', by order and size"))
        before = one
    return guesses


def _groups(one: _Found, n_before: int) -> list[Guess]:
    """Guess the groups of a convolution whose filters have fewer channels than the map before it."""
    rows = one.rows()
    if not rows[2:] or one.stated.get("kind") != "conv" or "groups" in one.stated or rows[1] in (0, n_before):
        return []
    groups, rest = divmod(n_before, rows[1])
    if rest or groups < 2 or rows[0] % groups:
        return []
    one.stated["groups"] = groups
    what = "depthwise" if rows[1] == 1 else f"{groups} groups"
    return [Guess("groups", one.name, f"taken as {what}, since the map before has {n_before} channels")]

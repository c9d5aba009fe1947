"""Describe a network by the names and shapes of its tensors, as state dicts and other files hold them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from qrsolve.plan.compilation import require_groups
from qrsolve.plan.network.description import Description, Guess
from qrsolve.plan.network.roles import known_roles
from qrsolve.spec.layout import layout_of
from qrsolve.spec.limit_kind import Role
from qrsolve.spec.network import Layer, NetworkSpec

Shape = tuple[int, ...]
_TORCH = re.compile(r"^weight_(?P<way>ih|hh|hr)(?P<end>(_l\d+)?(_reverse)?)$")
_RECURRENT = re.compile(
    r"(^|[._/])(rec|recurrent|w_?rec|w_?hh|lateral|recurrent_weights|rec_connect|weight_rec|h2h)($|[._/\d])",
    re.IGNORECASE,
)
_TRANSPOSED = re.compile(
    r"(^|[._/])(up|upconv|deconv|transpose[d]?|conv_?transpose\w*|convt)\d*($|[._/])", re.IGNORECASE
)
_EMBEDDING = re.compile(r"(^|[._/])(embed\w*|emb|wte|wpe|token_\w+|position\w*)\d*($|[._/])", re.IGNORECASE)
_KERAS = ("kernel", "recurrent_kernel")
"""What Keras and Flax call weights, which they store (inputs, outputs) and (*kernel, channels, filters)."""
_BY_NAME = "taken as (sources, neurons), which is how Keras and Flax store a kernel"
_TORCHS_WAY = "taken as (neurons, sources), torch's way"


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
        return _split(self.name)[0]

    @property
    def leaf(self) -> str:
        return _split(self.name)[1]

    @property
    def is_square(self) -> bool:
        return len(self.shape) == 2 and self.shape[0] == self.shape[1]

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
    normed: Collection[str] = (),
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
    normed : collection of str
        Tensors that a batch norm follows which has as many channels as their first axis, as `norms_after` tells.

    Returns
    -------
    Description
        With every guess.

    Raises
    ------
    ModelError, ShapeError
        Groups or roles that do not fit.

    Notes
    -----
    Names of torch's, Norse's, snnTorch's, sinabs' and Keras' recurrent layers tell populations. A bias tells the axis
    of the neurons; else the name that Keras and Flax give, and the sizes of layers that follow each other. Where these
    fit only if the neurons are last, it is so described, with a ``question`` to the user.
    """
    known, out = dict(vectors or {}), dict(left_out or {})
    asked_for = {*(roles or {}), *selected, *(name for group in groups for name in group)}
    found: list[_Found] = []
    for name, shape in shapes.items():
        own = tuple(int(n) for n in shape)
        bias = _bias_of(name, known)
        one = _Found(name, own, {}, own[0] if bias is None and name in normed else bias)
        if _EMBEDDING.search(one.prefix) and one.bias is None and len(own) == 2 and name not in asked_for:
            out[name] = "by its name an embedding, a table that stays on the host; kind embedding takes it"
            continue
        found.append(one)
    guesses: list[Guess] = []
    for one in found:
        if one.leaf == "recurrent_kernel":  # the bias of Keras' recurrent layers is that of both matrices
            one.bias = _bias_of(f"{one.name.removesuffix(one.leaf)}kernel", known)
        guesses += _kind_and_axis(one)
    if _has_plain_convolutions_only(found):
        guesses = [guess for guess in guesses if guess.rule != "kinds" or guess.tensor not in _square_kernels(found)]
    open_axes, question = _open_axes(found)
    guesses += open_axes
    found += _one_to_one(found, known, out)
    guesses += _populations(found, groups, roles or {}, known)
    guesses += _feeds(found)
    layers = [one.layer() for one in found]
    layers += [Layer(tensor=name, left_out=why) for name, why in out.items()]
    network = NetworkSpec.model_construct(schema_version=1, layers=tuple(layers), signs={})
    return Description(network, {one.name: one.shape for one in found}, tuple(guesses), question=question)


def _bias_of(name: str, vectors: Mapping[str, int]) -> int | None:
    """Return the length of the bias beside a weight; ``None`` where there is none."""
    leaf = _split(name)[1]
    start = name.removesuffix(leaf)
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
        if not one.is_sure and one.leaf in _KERAS:
            one.is_sure = True
            return [_taken_last(one, _BY_NAME)]
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
    groups, rest = divmod(one.bias, max(1, second))
    is_transposed = groups > 0 and not rest and first % groups == 0
    if one.leaf in _KERAS and one.bias == last:
        one.stated["neurons_axis"], one.is_sure = len(one.shape) - 1, True
    elif one.bias == first:
        one.is_sure = first != second and not (is_transposed and _TRANSPOSED.search(one.prefix))
    elif one.bias == last and not is_transposed:
        one.stated["neurons_axis"], one.is_sure = len(one.shape) - 1, True
    elif is_transposed:
        one.stated.update(kind="conv_transpose", groups=groups)
        one.is_sure = one.bias != last or groups == 1


def _guessed_convolution(one: _Found) -> Guess:
    if one.stated["kind"] == "conv_transpose":
        return Guess("kinds", one.name, "taken as a transposed convolution, which its bias fits")
    if _TRANSPOSED.search(one.prefix):
        groups = max(1, (one.bias or 0) // max(1, one.shape[1]))
        one.stated.update(kind="conv_transpose", groups=groups if one.shape[0] % groups == 0 else 1)
        return Guess("kinds", one.name, "taken as a transposed convolution by its name")
    if one.leaf in _KERAS:
        one.stated["neurons_axis"] = len(one.shape) - 1
        return Guess("kinds", one.name, "taken as a convolution stored (*kernel, channels, filters) by its name")
    return Guess("kinds", one.name, "taken as a convolution stored (filters, channels, *kernel)")


def _has_plain_convolutions_only(found: Sequence[_Found]) -> bool:
    """Whether some convolution is surely stored (filters, channels, *kernel), and none seems to be otherwise."""
    kernels = [one for one in found if len(one.shape) > 2]
    others = any(one.stated.get("kind") == "conv_transpose" or "neurons_axis" in one.stated for one in kernels)
    return any(one.is_sure for one in kernels) and not others


def _square_kernels(found: Sequence[_Found]) -> set[str]:
    """Return the kernels with a bias, of as many filters as channels, which are as the others of the file are."""
    return {one.name for one in found if len(one.shape) > 2 and one.shape[0] == one.shape[1] == one.bias}


def _open_axes(found: Sequence[_Found]) -> tuple[list[Guess], str]:
    """Let the other layers decide what no bias and no name tells: their axes, and sizes that follow each other.

    Returns guesses, and a question where the sizes say against torch's way.
    """
    flat = [one for one in found if len(one.shape) == 2]
    unsure = [one for one in flat if not one.is_sure]
    known = {_axis(one, 0) for one in flat if one.is_sure}
    in_order = [one for one in flat if not _is_recurrent(one)]
    n_pairs = len(in_order) - 1
    first = n_pairs > 0 and _fits(in_order, 0) == n_pairs
    last = n_pairs > 0 and _fits(in_order, 1) == n_pairs
    open_ = [one for one in unsure if not one.is_square and not _is_recurrent(one)]
    is_shown = bool(open_) and first and (not last or bool(known))
    if open_ and last and not first and _sizes_differ(in_order):
        guesses = [_taken_last(one, "the sizes follow each other only so; state 0 if they are first") for one in unsure]
        names = ", ".join(f"'{one.name}' {one.shape}" for one in open_[:4])
        return guesses, (
            f"{names}: neurons first or last? The sizes follow each other only if the neurons are last (inputs x "
            "outputs). qrsolve describe MODEL -o NET writes a network's file that says so; correct it, and give it as "
            "--network NET"
        )
    guesses = [] if is_shown else [Guess("axes", one.name, _TORCHS_WAY) for one in open_]
    for one in unsure:
        if not one.is_square:
            continue
        if known == {1}:
            guesses.append(_taken_last(one, "square; taken as (sources, neurons), as the others of the file are"))
        elif known != {0} and not is_shown:
            guesses.append(Guess("axes", one.name, f"square; {_TORCHS_WAY}"))
    return guesses, ""


def _taken_last(one: _Found, text: str) -> Guess:
    one.stated.update(kind="linear", neurons_axis=1)
    return Guess("axes", one.name, text)


def _axis(one: _Found, otherwise: int) -> int:
    """Return the axis of the neurons, as far as it is sure."""
    return int(str(one.stated.get("neurons_axis", 0))) if one.is_sure else otherwise


def _sizes_differ(in_order: Sequence[_Found]) -> bool:
    """Whether some two layers that follow each other are both not square."""
    return any(min(abs(a.shape[0] - a.shape[1]), abs(b.shape[0] - b.shape[1])) for a, b in pairwise(in_order))


def _fits(layers: Sequence[_Found], axis: int) -> int:
    """Count the layers whose sources are as many as the neurons of the one before, all stored with this axis first."""

    def sizes(one: _Found) -> tuple[int, int]:
        mine = _axis(one, axis)
        return one.shape[mine], one.shape[1 - mine]

    return sum(sizes(after)[1] == sizes(before)[0] for before, after in pairwise(layers))


def _is_recurrent(one: _Found) -> bool:
    return bool(_RECURRENT.search(one.name)) or one.leaf.startswith("weight_hh")


def _one_to_one(found: Sequence[_Found], vectors: Mapping[str, int], out: dict[str, str]) -> list[_Found]:
    """Return snnTorch's one-to-one recurrent weights: a vector ``V`` beside the neuron's own parameters."""
    taken = []
    for name, n in vectors.items():
        prefix, leaf = _split(name)
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
        elif one.leaf == "recurrent_kernel" or (one.leaf == "kernel" and f"{one.name[:-6]}recurrent_kernel" in by_name):
            _join(one, one.prefix or "rnn", "recurrent" if one.leaf == "recurrent_kernel" else None)
        elif one.leaf in ("input_weights", "recurrent_weights"):
            _join(one, one.prefix or "rnn", "recurrent" if one.leaf == "recurrent_weights" else None)
        elif _RECURRENT.search(one.name) and _could_recur(one):
            guesses += _recurrent_by_name(one, found, given, vectors)
        elif _could_recur(one):
            before = found[:i] if one.is_square else found[max(0, i - 1) : i]
            others = [f"'{o.name}'" for o in before if len(o.shape) == 2 and o.rows()[0] == one.rows()[0]]
            if others and "population" not in one.stated:
                sign = "square" if one.is_square else "as many rows as gates of its sources have"
                text = f"{sign}, so it may be the recurrent weights of {others[-1]}; taken as a population of its own"
                guesses.append(Guess("populations", one.name, text))
    return guesses


def _could_recur(one: _Found) -> bool:
    """Whether a matrix has as many rows as sources, or 3 or 4 times as many: the gates of a GRU or an LSTM."""
    rows, n_sources = one.rows()[0], prod(one.rows()[1:])
    return len(one.shape) == 2 and rows in (n_sources, 3 * n_sources, 4 * n_sources)


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
    owner = _split(one.prefix)[0]
    is_certain = len(free) == 1 and bool({f"{owner}.beta", f"{owner}.threshold"} & set(vectors))
    if is_certain:
        return []
    text = f"recurrent by its name, and of the neurons of '{chosen.name}'"
    return [Guess("populations", one.name, text)]


def _stem(name: str) -> str:
    """Return what is before the last word that tells input from recurrent: ``a.w_rec.weight`` is of ``a``."""
    parts = [part for part in re.split(r"[./]", name) if part not in ("weight", "kernel")]
    return ".".join(parts[:-1])


def _split(name: str) -> tuple[str, str]:
    """Return the module of a tensor and its own name in there; torch separates them by dots, Keras by slashes."""
    at = max(name.rfind("."), name.rfind("/"))
    return name[: max(at, 0)], name[at + 1 :]


def _feeds(found: Sequence[_Found]) -> list[Guess]:
    """Guess by order and size which population feeds each matrix: the one before, if it fits."""
    guesses: list[Guess] = []
    before: _Found | None = None
    for i, one in enumerate(found):
        if one.stated.get("role") == "recurrent" or one.stated.get("kind") == "one_to_one":
            continue
        rows = one.rows()
        before = _around_a_block(one, found[:i]) or before
        if before is not None and "fed_by" not in one.stated:
            n, is_map = before.rows()[0], bool(before.rows()[2:])
            guesses += _groups(one, n if is_map else 0)
            sources = layout_of(one.layer(), one.shape).n_sources if rows[2:] else prod(rows[1:])
            fits = sources == n or (is_map and n > 0 and not rows[2:] and sources % n == 0)
            if fits and n:
                one.stated["fed_by"] = before.stated.get("population", before.name)
                guesses.append(Guess("feeds", one.name, f"fed by '{one.stated['fed_by']}', by order and size"))
        before = one
    return guesses


def _around_a_block(one: _Found, before: Sequence[_Found]) -> _Found | None:
    """Return the last map of as many channels as a kernel of 1 x 1 has, which leads around a block of layers."""
    rows = one.rows()
    if not rows[2:] or prod(rows[2:]) != 1 or rows[1] < 2:
        return None
    return next((other for other in reversed(before) if other.rows()[2:] and other.rows()[0] == rows[1]), None)


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

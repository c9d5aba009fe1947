"""What the class of a module says of its own tensors: which are afferent matrices, and which axis is the neurons'.

Libraries are not imported: their classes are known by the modules that they come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

_TABLE = "a table that stays on the host; kind embedding takes it"
SHARED_BY_ALL = (
    "one number shared by all neurons; each neuron has 1 more source, which fan_in does not count; "
    "give each neuron a weight of its own"
)
_OTHER_SHAPE = (
    "needed one weight for each neuron, shape (n,); each neuron has 1 more source, which fan_in does not count"
)
LEAK = "the leak of its neurons, or what passes inputs on one to one; not connections"
_FIXED = "fixed (a buffer); each neuron has 1 more source, which fan_in does not count"


@dataclass(frozen=True)
class Claim:
    """What a class says of one of its tensors.

    Parameters
    ----------
    attribute : str
        What the module calls it.
    facts : dict of str to anything
        Fields of its `Layer`.
    population : str
        Tensors of one module with the same word here share their neurons; empty for those that share none.
    fed_by : tuple of str
        Attributes of the module whose neurons its columns are; empty where the class does not say.
    left_out : str
        Why it is left out unless it is named; empty for what is taken.
    guess : str
        What the class leaves open, and how it is taken.
    """

    attribute: str
    facts: dict[str, Any] = field(default_factory=dict)
    population: str = ""
    fed_by: tuple[str, ...] = ()
    left_out: str = ""
    guess: str = ""


@dataclass(frozen=True)
class Ends:
    """Where a layer takes its inputs, and whose neurons its outputs are: attributes of its module."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def is_from(module: nn.Module, library: str, *names: str) -> bool:
    """Return whether a module's class, or one that it comes from, is a library's, with one of these names if any.

    Parameters
    ----------
    module : nn.Module
        Any.
    library : str
        The package in which a class is defined.
    *names : str
        Names of its classes.
    """
    return any(
        t.__module__.partition(".")[0] == library and (not names or t.__name__ in names) for t in type(module).__mro__
    )


def claims(module: nn.Module) -> tuple[Claim, ...]:
    """Return what a module's class says of its own parameters; of what it does not mention, it says nothing."""
    for rule in _RULES:
        found = rule(module)
        if found:
            return found
    return ()


def ends(module: nn.Module, known: tuple[Claim, ...]) -> Ends:
    """Return the matrices that take a layer's inputs, and those of its output neurons."""
    if isinstance(module, nn.RNNBase):
        last, ways = module.num_layers - 1, ("", "_reverse") if module.bidirectional else ("",)
        out = "hr" if module.proj_size else "hh"
        return Ends(tuple(f"weight_ih_l0{w}" for w in ways), tuple(f"weight_{out}_l{last}{w}" for w in ways))
    taken = [claim for claim in known if not claim.left_out]
    inputs = [claim.attribute for claim in taken if claim.facts.get("role") != "recurrent"]
    return Ends(tuple(inputs[:1]), tuple(claim.attribute for claim in taken[-1:]))


def describes_a_weight(module: nn.Module) -> bool:
    """Return whether a module is one layer with one matrix, ``weight``, whose rows or columns are its neurons."""
    known = claims(module)
    return len(known) == 1 and known[0].attribute == "weight" and not known[0].left_out


def _linear(module: nn.Module) -> tuple[Claim, ...]:
    return (Claim("weight", {"kind": "linear"}),) if isinstance(module, nn.Linear) else ()


def _convolution(module: nn.Module) -> tuple[Claim, ...]:
    if not isinstance(module, nn.modules.conv._ConvNd):
        return ()
    is_transposed = bool(module.transposed)
    padding, guess = _padding(module)
    facts: dict[str, Any] = {
        "kind": "conv_transpose" if is_transposed else "conv",
        "stride": _short(module.stride),
        "padding": padding,
        "dilation": _short(module.dilation),
    }
    if module.groups != 1:
        facts["groups"] = int(module.groups)
    if is_transposed and any(module.output_padding):
        guess = f"output_padding {tuple(module.output_padding)} is left away: its map is larger by so much"
    if module.padding_mode != "zeros" and any(padding):
        guess = f"padding of zeros, in place of '{module.padding_mode}': no padding has connections of its own"
    return (Claim("weight", facts, guess=guess),)


def _padding(module: nn.modules.conv._ConvNd) -> tuple[tuple[int, ...], str]:
    """Return the padding at each end; where 'same' pads one more at one end, so much at both."""
    if not isinstance(module.padding, str):
        return _short(module.padding), ""
    if module.padding == "valid":
        return (0,), ""
    totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    guess = "padding 'same' pads one end by 1 less: its map is smaller by 1" if any(n % 2 for n in totals) else ""
    return _short(tuple((n + 1) // 2 for n in totals)), guess


def _short(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Say a number once where it is the same along each axis."""
    return numbers[:1] if len(set(numbers)) == 1 else tuple(numbers)


def _recurrent(module: nn.Module) -> tuple[Claim, ...]:
    """Torch's recurrent layers and cells; in an LSTM or GRU each gate's row counts as a neuron."""
    linear = {"kind": "linear"}
    if isinstance(module, nn.RNNCellBase):
        return (
            Claim("weight_ih", linear, "cell"),
            Claim("weight_hh", {**linear, "role": "recurrent"}, "cell", ("weight_hh",)),
        )
    if not isinstance(module, nn.RNNBase):
        return ()
    found = []
    ways = ("", "_reverse") if module.bidirectional else ("",)
    out = "hr" if module.proj_size else "hh"
    for layer in range(module.num_layers):
        before = tuple(f"weight_{out}_l{layer - 1}{way}" for way in ways) if layer else ()
        for way in ways:
            end = f"_l{layer}{way}"
            found.append(Claim(f"weight_ih{end}", linear, end, before))
            found.append(Claim(f"weight_hh{end}", {**linear, "role": "recurrent"}, end, (f"weight_{out}{end}",)))
            if module.proj_size:
                found.append(Claim(f"weight_hr{end}", linear))
    return tuple(found)


def _attention(module: nn.Module) -> tuple[Claim, ...]:
    if not isinstance(module, nn.MultiheadAttention):
        return ()
    names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    found = [Claim(name, {"kind": "attention"}) for name in names if getattr(module, name, None) is not None]
    biases = ("bias_k", "bias_v")
    return (*found, *(Claim(name, left_out="a bias of nn.MultiheadAttention, not connections") for name in biases))


def _bilinear(module: nn.Module) -> tuple[Claim, ...]:
    return (Claim("weight", {"kind": "bilinear"}),) if isinstance(module, nn.Bilinear) else ()


def _table(module: nn.Module) -> tuple[Claim, ...]:
    is_table = isinstance(module, nn.Embedding | nn.EmbeddingBag)
    return (Claim("weight", {"kind": "embedding"}, left_out=_TABLE),) if is_table else ()


def _scales(module: nn.Module) -> tuple[Claim, ...]:
    """Norms over several dimensions have scales of as many, which are no connections."""
    if not isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return ()
    own = [name for name, p in module._parameters.items() if p is not None and p.ndim > 1]
    return tuple(Claim(name, left_out=f"scales of nn.{type(module).__name__}, not connections") for name in own)


def _norse(module: nn.Module) -> tuple[Claim, ...]:
    """Norse's recurrent layers and cells, and its ``LILinearCell``, keep their weights as attributes."""
    if not is_from(module, "norse"):
        return ()
    own = module._parameters
    found = [Claim("input_weights", {"kind": "linear"}, "cell")] if own.get("input_weights") is not None else []
    if own.get("recurrent_weights") is not None:
        found.append(
            Claim("recurrent_weights", {"kind": "linear", "role": "recurrent"}, "cell", ("recurrent_weights",))
        )
    return tuple(found)


def _snntorch(module: nn.Module) -> tuple[Claim, ...]:
    """One-to-one recurrence of snnTorch's neurons: a weight for each, or one number for all."""
    if not is_from(module, "snntorch", "RLeaky", "RSynaptic") or getattr(module, "all_to_all", True):
        return ()
    facts: dict[str, Any] = {"kind": "one_to_one", "role": "recurrent"}
    weight = module._parameters.get("V")
    if weight is None:
        return (Claim("V", left_out=_FIXED),) if module._buffers.get("V") is not None else ()
    if weight.numel() == 1:
        return (Claim("V", left_out=SHARED_BY_ALL),)
    if weight.numel() != len(weight):
        return (Claim("V", left_out=f"of shape {tuple(weight.shape)}; {_OTHER_SHAPE}"),)
    return (Claim("V", facts, fed_by=("V",)),)


def leaks(module: nn.Module) -> list[Tensor]:
    """Return the matrices in which snnTorch's parallel neurons keep their leak, on the diagonal."""
    if not is_from(module, "snntorch", "LeakyParallel", "LeakyKernel"):
        return []
    inner = module._modules.get("rnn")
    own = {} if inner is None else inner._parameters
    found = [p for name in ("weight_ih_l0", "weight_hh_l0") if (p := own.get(name)) is not None]
    return [p for p in found if p.device.type != "meta" and _is_diagonal(p)]


def _is_diagonal(weight: Tensor) -> bool:
    return len(weight) == weight.shape[1] and int(weight.count_nonzero()) == int(weight.diagonal().count_nonzero())


def _inputs_first(module: nn.Module) -> tuple[Claim, ...]:
    """Layers that store (inputs, outputs): Hugging Face's ``Conv1D``, Rockpool's linear and recurrent ones."""
    facts: dict[str, Any] = {"kind": "linear", "neurons_axis": 1}
    if is_from(module, "transformers", "Conv1D") or is_from(module, "rockpool", "LinearTorch", "Linear"):
        return (Claim("weight", facts),)
    if is_from(module, "rockpool") and module._parameters.get("w_rec") is not None:
        return (Claim("w_rec", {**facts, "role": "recurrent"}, fed_by=("w_rec",)),)
    return ()


def _by_attributes(module: nn.Module) -> tuple[Claim, ...]:
    """Layers of classes that are not known, if their sizes or bias tell which axis is which."""
    weight = module._parameters.get("weight")
    if weight is None or isinstance(weight, UninitializedParameter) or weight.ndim != 2:
        return ()
    rows, columns = weight.shape
    sizes = _stated_sizes(module)
    if sizes is None:
        bias = module._parameters.get("bias")
        n = len(bias) if isinstance(bias, Tensor) and bias.ndim == 1 else -1
        sizes = (columns, rows) if n == rows else (rows, columns) if n == columns else None
    if sizes is None or sorted(sizes) != sorted((rows, columns)):
        return ()
    if rows == columns:
        shown = f"{type(module).__name__} stores {rows} x {columns}, and does not say which axis is the neurons'"
        return (Claim("weight", {"kind": "linear"}, guess=f"{shown}; the first is taken, as torch stores them"),)
    facts: dict[str, Any] = {"kind": "linear"}
    return (Claim("weight", facts if sizes == (columns, rows) else {**facts, "neurons_axis": 1}),)


def _stated_sizes(module: nn.Module) -> tuple[int, int] | None:
    """Return how many inputs and outputs a module says that it has."""
    pairs = (("in_features", "out_features"), ("in_channels", "out_channels"), ("input_size", "output_size"))
    for pair in pairs:
        n_in, n_out = (getattr(module, name, None) for name in pair)
        if isinstance(n_in, int) and isinstance(n_out, int):
            return n_in, n_out
    return None


_RULES: tuple[Callable[[nn.Module], tuple[Claim, ...]], ...] = (
    _linear,
    _convolution,
    _recurrent,
    _attention,
    _bilinear,
    _table,
    _scales,
    _norse,
    _snntorch,
    _inputs_first,
    _by_attributes,
)

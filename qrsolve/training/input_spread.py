"""Input spread: a connection to a source that hardly changes is worth less of a neuron's budget."""

from __future__ import annotations

from torch import Tensor

_FLOOR = 1e-3


def input_spread(mean: Tensor, mean_square: Tensor) -> Tensor | None:
    """Return ``h`` of every source, > 0: the standard deviation of its input, relative to that of all of them.

    ``h = sqrt(variance / mean variance + 0.001)``

    The projection minimises ``sum h (w - v)^2``. With all inputs alike (``h = 1``), a budget of a few synapses goes
    partly to sources that carry next to nothing: about a third of MNIST's pixels are almost constant, yet Adam moves
    their weights as far as any. The standard deviation lies between ``h = 1`` and the variance, which is the diagonal
    of the layer's quadratic error and was found to concentrate the wiring on too few sources
    (examples/benchmarks/RESULTS.md).

    Parameters
    ----------
    mean, mean_square : Tensor
        Running moments of the inputs, shape (n_sources,).

    Returns
    -------
    Tensor or None
        Shape (n_sources,); ``None`` where no input varies, and before the first step.

    References
    ----------
    Magnitude times input norm as the saliency of a weight: Sun et al. 2024 (Wanda), there for pruning after training.
    """
    variance = (mean_square - mean.square()).clamp_(min=0)
    typical = variance.mean()
    if not float(typical) > 0:
        return None
    return (variance / typical + _FLOOR).sqrt_()

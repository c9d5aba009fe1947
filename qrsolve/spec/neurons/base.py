"""What all kinds of neurons have in common: ranges of integers, and how parameters become such.

Thresholds and biases are in weight units, so they are divided by the scale of the weights. Where a spike resets to
zero, a threshold is rounded so that sums of weights, which are whole multiples of the scale, fire exactly where they
did: down for chips that fire above it, up for those that fire at it. A threshold that is subtracted, and everything
else, is rounded to the nearest integer, ties to even.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from qrsolve.errors import InfeasibleError
from qrsolve.problem.neuron import Leak, NeuronCodes, NeuronParameters, Reset
from qrsolve.spec.facts import Fact
from qrsolve.surface.lazy import np

if TYPE_CHECKING:
    from qrsolve.problem.options import FloatArray, IntArray

RegisterBits = Annotated[int, Field(ge=1, le=32)]
Scope = Literal["neuron", "pair", "channel", "layer", "core", "chip"]
"""Which neurons share a parameter."""


_BIASES = ("bias", "bias_mantissa", "bias_exponent")
"""Which integers are held by ``bias_scope``; a leak that is a bias is held by the scope of all others."""


class NeuronKind(Fact):
    """Base of all kinds of neurons: what the registers of one neuron hold."""

    kind: str
    """Which neurons."""
    scope: Scope = "neuron"
    """Which neurons share threshold and decays."""
    bias_scope: Scope = "neuron"
    """Which neurons share a bias."""
    threshold_bits: RegisterBits
    """Width of the threshold, sign included where it has one."""
    bias_bits: RegisterBits | None = None
    """Width of the bias, sign included; none without it."""
    state_bits: RegisterBits
    """Width of the voltage, sign included."""
    resets: Annotated[tuple[Reset, ...], Field(min_length=1, strict=False)]
    """What a spike can do: zero, subtract."""
    fires_at: ClassVar[bool] = True
    """Whether a voltage that equals the threshold fires."""

    def held(
        self, name: str, neurons: NeuronParameters, scale: FloatArray, n_channels: int | None = None
    ) -> NeuronCodes:
        """Return `codes`, where neurons that share a parameter on the chip share its integer.

        Parameters
        ----------
        name, neurons, scale
            As in `codes`.
        n_channels : int or None
            Of how many channels the neurons are maps, one after the other; ``None`` where each neuron is its own.

        Raises
        ------
        InfeasibleError
            As in `codes`; or two neurons that share a parameter, by the chip's scopes, have different integers.
        """
        found = replace(self.codes(name, neurons, scale), registers=self.registers())
        for word, integers in found.arrays.items():
            if text := self._not_shared(word, integers, n_channels)[1]:
                raise InfeasibleError(f"'{name}', {text}")
        return found

    def _not_shared(self, word: str, integers: IntArray, n_channels: int | None) -> tuple[int, str]:
        """Return how many neurons have another integer than the one that they share it with, and the first in words."""
        scope, n = self.bias_scope if word in _BIASES else self.scope, len(integers)
        sizes = {"layer": n, "core": n, "chip": n, "pair": 2, "channel": n // n_channels if n_channels else 1}
        together = sizes.get(scope, 1)
        if together <= 1:
            return 0, ""
        first = np.arange(n) // together * together
        wrong = np.flatnonzero(integers != integers[first])
        if not len(wrong):
            return 0, ""
        at, other = int(wrong[0]), int(first[wrong[0]])
        text = f"neuron {at}: {word} {integers[at]}, where neuron {other} has {integers[other]}"
        return len(wrong), f"{text}; the chip has one for each {scope}"

    @abstractmethod
    def codes(self, name: str, neurons: NeuronParameters, scale: FloatArray) -> NeuronCodes:
        """Return the nearest parameters that a chip can hold.

        Parameters
        ----------
        name : str
            The population, for errors.
        neurons : NeuronParameters
            Those of the network.
        scale : array
            Shape (n_neurons,), > 0: what integer weights of a neuron are multiplied with.

        Raises
        ------
        InfeasibleError
            A parameter is out of range, or of a kind that the chip does not have; with neuron, value and range.
        """

    @abstractmethod
    def nearest_leak(self, keeps: float) -> Leak:
        """Return the leak that a chip holds exactly and that is nearest to a voltage that keeps so much per step.

        Parameters
        ----------
        keeps : float
            0 to 1.
        """

    def registers(self) -> dict[str, int]:
        """Return what the chip's file states in whole numbers."""
        stated = self.model_dump(exclude=set(Fact.model_fields))
        return {name: value for name, value in stated.items() if isinstance(value, int)}

    @abstractmethod
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the largest integer of each array of `codes`."""

    def outside(self, arrays: Mapping[str, IntArray], n_channels: int) -> tuple[int, str]:
        """Return how many integers the chip cannot hold, and the first of them in words.

        Parameters
        ----------
        arrays : mapping of str to array
            As in `NeuronCodes`; one that is missing, not of this kind or of another length counts as one.
        n_channels : int
            As in `held`: each channel has as many neurons.
        """
        ranges = self.ranges()
        found = [
            (1, f"'{word}' {'is missing' if word in ranges else 'is no parameter of these neurons'}")
            for word in sorted(ranges.keys() ^ arrays.keys())
        ]
        lengths = {word: len(arrays[word]) for word in ranges if word in arrays}
        n = max(lengths.values(), default=0)
        for word, length in lengths.items():
            if length != n or not length or length % max(1, n_channels):
                needed = f"{n:,}, as of the others" if length != n else f"a multiple of {n_channels:,}"
                found.append((1, f"{length:,} integers of {word}; needed {needed}"))
        if found:
            return sum(each for each, _ in found), found[0][1]
        for word, (least, most) in ranges.items():
            wrong = np.flatnonzero((arrays[word] < least) | (arrays[word] > most))
            if len(wrong):
                text = f"neuron {wrong[0]}: {word} {arrays[word][wrong[0]]}; needed {least:,} to {most:,}"
                found.append((len(wrong), text))
            else:
                found.append(self._not_shared(word, arrays[word], n_channels))
        return sum(each for each, _ in found), next((text for _, text in found if text), "")

    def require_reset(self, name: str, neurons: NeuronParameters) -> None:
        """Raise `InfeasibleError` for a reset that the chip does not have."""
        if neurons.reset not in self.resets:
            had = " or ".join(self.resets)
            raise InfeasibleError(f"'{name}': a spike resets by '{neurons.reset}'; the chip's neurons by {had}")

    def thresholds(self, name: str, neurons: NeuronParameters, scale: FloatArray, most: int) -> IntArray:
        """Return the integers at which the same sums of weights fire, or the nearest where they are subtracted.

        Parameters
        ----------
        name, neurons, scale
            As in `codes`.
        most : int
            The largest that the chip holds.
        """
        quotient = neurons.threshold / scale
        nearest = np.round(quotient)
        if neurons.reset == "subtract":
            found = np.maximum(nearest, 1)
            return within(name, "threshold", neurons.threshold, found, (1, most), f"{self.threshold_bits} bits")
        # Sums of weights over the scale are whole numbers up to the rounding of a quotient.
        quotient = np.where(np.abs(quotient - nearest) <= 1e-9 * np.maximum(nearest, 1), nearest, quotient)
        first = np.ceil(quotient) if neurons.fires_at else np.floor(quotient) + 1
        found = first if self.fires_at else first - 1
        return within(name, "threshold", neurons.threshold, found, (1, most), f"{self.threshold_bits} bits")

    def biases(
        self, name: str, neurons: NeuronParameters, scale: FloatArray, bits: int | None
    ) -> tuple[IntArray, FloatArray]:
        """Return biases as integers of so many bits, sign included, and what rounding changed.

        Parameters
        ----------
        name, neurons, scale
            As in `codes`.
        bits : int or None
            None where the chip has no bias.
        """
        if bits is None:
            if bool((neurons.bias != 0).any()):
                at = int(np.flatnonzero(neurons.bias)[0])
                text = f"'{name}', neuron {at}: a bias of {neurons.bias[at]:.6g}; the chip's neurons have none"
                raise InfeasibleError(text)
            return np.zeros(neurons.n_neurons, dtype=np.int64), np.zeros(neurons.n_neurons)
        limits = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        found = within(name, "bias", neurons.bias, np.round(neurons.bias / scale), limits, f"{bits} bits")
        return found, found * scale - neurons.bias


def within(
    name: str, word: str, values: FloatArray, integers: FloatArray, limits: tuple[int, int], room: str
) -> IntArray:
    """Return integers that are in a range.

    Parameters
    ----------
    name : str
        The population.
    word : str
        The parameter.
    values : array
        What is to be held, for errors.
    integers : array
        Whole numbers, shape (n_neurons,).
    limits : tuple of int
        The least and the largest.
    room : str
        What the chip has, for errors.

    Raises
    ------
    InfeasibleError
        The first neuron whose integer is not in the range, or is none.
    """
    wrong = ~((integers >= limits[0]) & (integers <= limits[1]))
    if bool(wrong.any()):
        at = int(np.flatnonzero(wrong)[0])
        came = f"{integers[at]:.0f}" if np.isfinite(integers[at]) else "no number"
        raise InfeasibleError(
            f"'{name}', neuron {at}: {word} {values[at]:.6g} is {came} as an integer; "
            f"{room} hold {limits[0]:,} to {limits[1]:,}"
        )
    return integers.astype(np.int64)

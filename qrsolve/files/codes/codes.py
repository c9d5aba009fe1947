"""The codes of a network, and the manifest that says what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qrsolve import __version__
from qrsolve.audit.check import check
from qrsolve.audit.neurons.chain import chain_of
from qrsolve.audit.neurons.simulation import SimulatedLayer, simulate
from qrsolve.audit.report import Report
from qrsolve.errors import ModelError
from qrsolve.files.codes.encoding import encode
from qrsolve.files.codes.tensor_codes import Array, TensorCodes
from qrsolve.files.provenance import recorded, recorded_populations
from qrsolve.plan.compilation import Plan
from qrsolve.plan.population import Population
from qrsolve.problem.neuron import NeuronCodes, NeuronParameters
from qrsolve.spec import spec_hash
from qrsolve.spec.network import NetworkSpec
from qrsolve.surface.shown import Shown, n_of
from qrsolve.surface.words import did_you_mean

SCHEME = 1
"""Version of the scheme; a reader refuses a later one."""
_MEANING = {
    "table": "weight = table[scope, codes]",
    "integers": "weight = codes * scale[scope]",
    "values": "weight = values where mask is 1, else 0",
}


class Codes(Shown, Mapping[str, TensorCodes]):
    """What a chip is loaded with: a mapping of tensors to `TensorCodes`, with a manifest.

    Parameters
    ----------
    plan : Plan
        The chip, compiled for the network.
    tensors : mapping of str to TensorCodes
        By the names of the weights.
    others : mapping of str to array
        Tensors that are no afferent matrices (biases, norms), as they came.
    parameters : mapping of str to Tensor
        The values by population, shape (n_scopes, n_parameters).
    report : Report
        What the weights use of each limit.
    neurons : mapping of str to NeuronCodes
        By population, of those whose neurons are known and stated by the chip.
    network : NetworkSpec or None
        How the tensors are wired, where somebody stated it.
    scales : mapping of str to array or None
        By population, shape (n_neurons,): of which number the weights of each neuron are whole multiples.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Mapping[str, TensorCodes],
        others: Mapping[str, Array],
        parameters: Mapping[str, Tensor],
        report: Report,
        neurons: Mapping[str, NeuronCodes],
        network: NetworkSpec | None = None,
        scales: Mapping[str, Array] | None = None,
    ) -> None:
        self.plan, self.others, self.report, self.neurons = plan, dict(others), report, dict(neurons)
        self._tensors, self._network = dict(tensors), network
        self._parameters, self._scales = dict(parameters), dict(scales or {})

    def __getitem__(self, name: str) -> TensorCodes:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def n_bytes(self) -> int:
        """Bytes of all codes, each in as few bits as the range of its tensor needs; tables and scales apart."""
        return -(-sum(codes.n_bits for codes in self.values()) // 8)

    @property
    def n_bytes_of_floats(self) -> int:
        """Bytes of the same weights in float32."""
        return 4 * sum(int(np.prod(codes.shape)) for codes in self.values())

    def manifest(self) -> dict[str, Any]:
        """Return JSON values that say what the codes are, of which chip, and what was decided."""
        verdict = self.report.to_dict()
        return {
            "codes": SCHEME,
            "spec": self.plan.spec.name,
            "spec_hash": spec_hash(self.plan.spec),
            "versions": {"qrsolve": __version__, "numpy": np.__version__, "torch": torch.__version__.split("+")[0]},
            "units": "scales and tables are in the units of the network's weights",
            "rounding": "to the nearest number of the dtype, ties to even",
            "ties": "of codes with one value, the fewest synapses, then the smallest code",
            "tensors": {
                name: {
                    "coding": codes.coding,
                    "meaning": _MEANING[codes.coding],
                    "dtype": codes.dtype,
                    "shape": list(codes.shape),
                    "types": list(codes.type_names),
                }
                for name, codes in self.items()
            },
            "compliant": verdict["compliant"],
            "decided": [row.to_dict() for row in self.report.rows],
            "not_decided": [*verdict["not_decided"], *self._neurons_not_decided()],
            "neurons": {
                name: {
                    "kind": codes.kind,
                    "reset": codes.reset,
                    "largest_errors": {key: float(np.abs(error).max()) for key, error in codes.errors.items()},
                }
                for name, codes in self.neurons.items()
            },
            "not_enforced": verdict["not_enforced"],
            "layers": recorded_populations(self.plan.populations, self._parameters),
            **recorded(self._network),
        }

    def arrays(self) -> dict[str, Array]:
        """Return everything by its name in a file: ``NAME/codes`` and so on, and the other tensors."""
        coded = {f"{name}/{field}": array for name, codes in self.items() for field, array in codes.arrays.items()}
        of_neurons = {
            f"{name}/neurons/{field}": array
            for name, codes in self.neurons.items()
            for field, array in codes.arrays.items()
        }
        return {**coded, **of_neurons, **self.others}

    def _neurons_not_decided(self) -> list[dict[str, str]]:
        open_ones = [each.name for each in self.plan.populations if each.name not in self.neurons]
        if not open_ones:
            return []
        if self.plan.spec.neurons is None:
            reason = f"{self.plan.spec.name} states none"
        else:
            reason = f"those of {', '.join(open_ones)} are not known; give neurons, or a NIR graph and dt"
        return [{"rule": "neurons", "reason": reason}]

    def layers(self) -> list[SimulatedLayer]:
        """Return the network in integers, as `simulate` takes it; errors as there."""
        matrices = {}
        for population in self.plan.populations:
            name, decoded = population.name, {n: torch.from_numpy(self[n].decoded()) for n in population.names}
            if name not in self._scales:
                raise ModelError(f"weights of '{name}' are no whole multiples of a scale; simulated are integers")
            scaled = population.matrix(decoded).double().numpy() / self._scales[name][:, None]
            matrices[name] = np.rint(scaled).astype(np.int64)
        return chain_of(self.plan.populations, matrices, self.neurons)

    def simulate(self, events: Array) -> Array:
        """Run the network in the integers of the chip: linear layers, each of which drives the next.

        Parameters
        ----------
        events : array
            Whole numbers, shape (n_steps, batch, n_sources): events of each source in each step.

        Returns
        -------
        array
            int64, shape (n_steps, batch, n_neurons): how often each neuron of the last population fires in each step.

        Raises
        ------
        ModelError
            Neurons that are not coded (see ``neurons`` of `qrsolve.export`), weights that are no integers, or a network
            that is no chain of linear layers.
        ShapeError
            The events are of other sources.
        """
        return simulate(self.layers(), events)

    def save(self, path: str | PathLike[str], format: str | None = None, *, force: bool = False) -> None:  # noqa: A002
        """Write a file, whole or not at all; see `qrsolve.files.codes.formats.write_codes`.

        Parameters
        ----------
        path : str or path
            Its ending is the format: ``.npz``, ``.json`` or ``.csv``.
        format : str or None
            The format, where the ending is another.
        force : bool
            Replace an existing file.

        Raises
        ------
        ModelError, OutputError
            No such format; the file exists, or cannot be written.
        """
        from qrsolve.files.codes.formats import write_codes

        write_codes(self, path, format, force=force)

    def _facts(self) -> str:
        share = self.n_bytes / max(self.n_bytes_of_floats, 1)
        return f"{self.plan.spec.name}: {n_of(len(self), 'tensor')}, {self.n_bytes:,} bytes, {share:.1%} of float32"


def export_plan(
    plan: Plan,
    weights: Mapping[str, Tensor],
    others: Mapping[str, Tensor] | None = None,
    claimed: Mapping[str, Tensor] | None = None,
    use: Mapping[str, Tensor] | None = None,
    neurons: Mapping[str, NeuronParameters] | None = None,
    network: NetworkSpec | None = None,
) -> Codes:
    """Return the codes of deployable weights.

    Parameters
    ----------
    plan : Plan
        The chip, compiled for the network.
    weights : mapping of str to Tensor
        By the names of the plan.
    others : mapping of str to Tensor or None
        Tensors that go into the file as they are.
    claimed, use : mapping of str to Tensor, or None
        As in `check`.
    neurons : mapping of str to NeuronParameters or None
        Of populations, by their names or those of one of their matrices.
    network : NetworkSpec or None
        How the tensors are wired, where somebody stated it; for the manifest.

    Raises
    ------
    ModelError
        The weights break a rule of the chip, or are none of its values; with the first violation. Neurons of a
        population that there is not, or of another number.
    InfeasibleError
        Neurons that the chip cannot hold.
    """
    report = check(plan, weights, claimed, use)
    if not report.is_compliant:
        n = len(report.violations)
        more = f" (and {n_of(n - 1, 'more violation')})" if n > 1 else ""
        raise ModelError(
            f"not deployable: {report.violations[0].text}{more}; project the model, and export the projections"
        )
    tensors: dict[str, TensorCodes] = {}
    parameters, coded, scales = {}, {}, {}
    stated = _by_population(plan, neurons or {})
    if stated and plan.spec.neurons is None:
        raise ModelError(f"{plan.spec.name} states no neurons, so these cannot be coded; leave them (and 'dt') out")
    for population in plan.populations:
        chip = population.held_to(plan.spec)
        matrix = population.matrix(weights).cpu()
        known = None if claimed is None else claimed.get(population.name)
        found = encode(population, chip, matrix, known)
        tensors |= found.tensors
        if found.parameters is not None:
            parameters[population.name] = found.parameters
        if found.scale is not None:
            scales[population.name] = found.scale.numpy()
        if population.name in stated and chip.neurons is not None and found.scale is not None:
            own = stated[population.name]
            scale = _of_each(population, scales[population.name], own.n_neurons)
            coded[population.name] = chip.neurons.held(population.name, own, scale, len(matrix))
    plain = {name: _plain(tensor) for name, tensor in (others or {}).items()}
    return Codes(plan, tensors, plain, parameters, report, coded, network, scales)


def _by_population(plan: Plan, neurons: Mapping[str, NeuronParameters]) -> dict[str, NeuronParameters]:
    names = {name: each.name for each in plan.populations for name in (*each.names, each.name)}
    strange = next((name for name in neurons if name not in names), None)
    if strange is not None:
        hint = did_you_mean(strange, names) or f"; there is {', '.join(names)}"
        raise ModelError(f"neurons: no population or matrix '{strange}'{hint}")
    return {names[name]: own for name, own in neurons.items()}


def _of_each(population: Population, scale: Array, n_neurons: int) -> Array:
    """Return the scale of each neuron: of each place of a map, that of its filter."""
    places, rest = divmod(n_neurons, len(scale))
    if rest or (places != 1 and population.n_neurons not in (None, n_neurons)):
        raise ModelError(f"neurons: '{population.name}' has {len(scale):,} rows; {n_neurons:,} neurons came")
    return np.repeat(scale, places)


def _plain(tensor: Tensor) -> Array:
    tensor = tensor.detach().cpu()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array

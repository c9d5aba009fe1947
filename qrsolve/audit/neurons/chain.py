"""A network whose populations drive each other one after the other, for a simulation in integers or in floats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qrsolve.audit.neurons.simulation import Numbers, SimulatedLayer
from qrsolve.errors import ModelError
from qrsolve.plan.population import Population
from qrsolve.problem.neuron import NeuronCodes, NeuronParameters


def chain_of(
    populations: tuple[Population, ...],
    matrices: Mapping[str, Numbers],
    neurons: Mapping[str, NeuronCodes] | Mapping[str, NeuronParameters],
) -> list[SimulatedLayer]:
    """Return the populations as layers of which each drives the next.

    Parameters
    ----------
    populations : tuple of Population
        In the order of the network.
    matrices : mapping of str to array
        By population, shape (n_neurons, n_sources): integers, or floats beside `NeuronParameters`.
    neurons : mapping of str to NeuronCodes or NeuronParameters
        By population.

    Raises
    ------
    ModelError
        Neurons that are not known; or a network that is no chain of linear layers, each with recurrent weights at most.
    """
    layers: list[SimulatedLayer] = []
    n_before: int | None = None
    for position, population in enumerate(populations):
        name = population.name
        if name not in neurons:
            raise ModelError(f"the neurons of '{name}' are not known")
        if any(len(shape) != 2 for shape in population.shapes) or any(each.groups != 1 for each in population.layouts):
            raise ModelError(f"'{name}' is no linear layer; simulated are chains of those")
        at = {role: i for i, role in enumerate(population.roles) if role is not None}
        is_recurrent = len(population.names) == 2 and set(at) == {"input", "recurrent"}
        if len(population.names) != 1 and not is_recurrent:
            raise ModelError(f"'{name}' is driven by {len(population.names)} matrices; simulated are chains")
        source, own = (at["input"], at["recurrent"]) if is_recurrent else (0, None)
        fed_by = population.feeds[source] if population.feeds else None
        n_sources, n_rows = population.widths[source], population.n_rows
        wrong_order = fed_by is not None and fed_by not in ((), (position - 1,))
        if wrong_order or (n_before is not None and n_before != n_sources):
            raise ModelError(f"'{name}' is not driven by the population before it alone; simulated are chains")
        parts = np.split(matrices[name], np.cumsum(population.widths)[:-1], axis=1)
        recurrent = None if own is None else parts[own]
        layers.append(SimulatedLayer(parts[source], neurons[name], recurrent))
        n_before = n_rows
    return layers

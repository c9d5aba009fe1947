"""Neurons of other frameworks and of NIR graphs as parameters per time step and in weight units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from qrsolve.errors import ModelError
from qrsolve.problem.neuron import NeuronParameters, Reset
from qrsolve.problem.options import FloatArray


def from_decays(
    n_neurons: int,
    voltage_keeps: ArrayLike,
    threshold: ArrayLike,
    *,
    current_keeps: ArrayLike | None = None,
    gain: ArrayLike = 1.0,
    bias: ArrayLike = 0.0,
    reset: Reset = "subtract",
    fires_at: bool = False,
) -> NeuronParameters:
    """Return parameters from what a voltage and a current keep per step; numbers are taken for all neurons.

    Parameters
    ----------
    n_neurons : int
        How many there are.
    voltage_keeps, current_keeps : array or float
        0 to 1; ``None`` for neurons without a current.
    threshold : array or float
        In the units of the voltage.
    gain : array or float
        What inputs are multiplied with on their way to the voltage, > 0: thresholds and biases are divided by it, so
        that they are in weight units.
    bias : array or float
        Added to the voltage in each step.
    reset : {"zero", "subtract"}
        What a spike does.
    fires_at : bool
        Whether a voltage that equals the threshold fires.
    """

    def each(value: ArrayLike) -> FloatArray:
        return np.array(np.broadcast_to(np.asarray(value, dtype=np.float64).reshape(-1), (n_neurons,)))

    by = each(gain)
    return NeuronParameters(
        each(voltage_keeps),
        each(threshold) / by,
        each(bias) / by,
        None if current_keeps is None else each(current_keeps),
        reset,
        fires_at,
    )


def of_module(module: nn.Module, n_neurons: int) -> NeuronParameters | None:
    """Return the parameters of a module of neurons; ``None`` for one of another class.

    ==================================  ================================================================================
    class                               taken as
    ==================================  ================================================================================
    snnTorch ``Leaky``, ``Synaptic``    ``beta``, ``alpha``, ``threshold``; fires above; resets as ``reset_mechanism``
    sinabs ``LIF``, ``IAF``             ``exp(-1/tau_mem)``, inputs times ``1 - exp(-1/tau_mem)`` where ``norm_input``;
                                        ``tau_syn``; fires at the threshold, which is subtracted
    Norse ``LIFCell``, ``LIFBoxCell``   forward Euler of ``p``: ``1 - dt tau_mem_inv``, ``1 - dt tau_syn_inv``; resets
                                        to ``v_reset``, which has to be ``v_leak``
    ==================================  ================================================================================

    Parameters
    ----------
    module : nn.Module
        Any.
    n_neurons : int
        How many neurons it stands for: its parameters may be single numbers.

    Raises
    ------
    ModelError
        It is one of these, and resets in another way than to rest or by its threshold.
    """
    word = f"{type(module).__module__.split('.')[0]}.{type(module).__name__}"
    if word in ("snntorch.Leaky", "snntorch.Synaptic"):
        return _of_snntorch(module, n_neurons)
    if word in ("sinabs.LIF", "sinabs.IAF", "sinabs.IAFSqueeze", "sinabs.LIFSqueeze"):
        return _of_sinabs(module, n_neurons)
    if word in ("norse.LIFCell", "norse.LIFBoxCell"):
        return _of_norse(module, n_neurons)
    return None


def _of_snntorch(module: nn.Module, n_neurons: int) -> NeuronParameters:
    reset = str(getattr(module, "reset_mechanism", "subtract"))
    if reset not in ("zero", "subtract"):
        raise ModelError(f"snnTorch's {type(module).__name__} with reset_mechanism '{reset}'; needed zero or subtract")
    alpha = getattr(module, "alpha", None)
    return from_decays(
        n_neurons,
        _number(module, "beta"),
        _number(module, "threshold"),
        current_keeps=None if alpha is None else np.clip(_number(module, "alpha"), 0.0, 1.0),
        reset="zero" if reset == "zero" else "subtract",
    )


def _of_sinabs(module: nn.Module, n_neurons: int) -> NeuronParameters:
    tau, synapse = getattr(module, "tau_mem", None), getattr(module, "tau_syn", None)
    keeps: ArrayLike = 1.0 if tau is None else np.exp(-1.0 / _number(module, "tau_mem"))
    is_normed = tau is not None and bool(getattr(module, "norm_input", True))
    return from_decays(
        n_neurons,
        keeps,
        _number(module, "spike_threshold"),
        current_keeps=None if synapse is None else np.exp(-1.0 / _number(module, "tau_syn")),
        gain=1.0 - np.asarray(keeps) if is_normed else 1.0,
        fires_at=True,
    )


def _of_norse(module: nn.Module, n_neurons: int) -> NeuronParameters:
    p: Any = module.p
    dt = float(getattr(module, "dt", 0.001))
    leak, reset = _value(p.v_leak), _value(p.v_reset)
    if bool(np.any(leak != reset)):
        raise ModelError(f"Norse's {type(module).__name__} resets to {reset}, and rests at {leak}; needed the same")
    share = dt * _value(p.tau_mem_inv)
    synapse = getattr(p, "tau_syn_inv", None)
    return from_decays(
        n_neurons,
        1 - share,
        _value(p.v_th) - leak,
        current_keeps=None if synapse is None or type(module).__name__ == "LIFBoxCell" else 1 - dt * _value(synapse),
        gain=share,
        reset="zero",
    )


def of_nir_node(name: str, kind: str, values: Mapping[str, FloatArray], dt: float) -> NeuronParameters | None:
    """Return the parameters of a neuron node of a NIR graph by forward Euler; ``None`` for a node of another type.

    ``tau dv/dt = v_leak - v + r i`` becomes ``v <- v + dt/tau (v_leak - v + r i)``, and likewise for the current of a
    CubaLIF; an event counts 1 in its step. An IF takes ``r`` times its inputs whatever ``dt`` is, as sinabs and
    snnTorch do. Readouts (LI, CubaLI) have no threshold, and are left out.

    Parameters
    ----------
    name : str
        The node, for errors.
    kind : str
        Its type.
    values : mapping of str to array
        Its fields: tau, r, v_leak, v_threshold, v_reset, tau_mem, tau_syn, w_in.
    dt : float
        Seconds of one step.

    Raises
    ------
    ModelError
        The step is no shorter than a time constant, or a spike resets to another voltage than the neuron rests at.
    """
    if kind not in ("LIF", "IF", "CubaLIF"):
        return None
    threshold, r = values["v_threshold"].reshape(-1), values["r"].reshape(-1)
    rest = values.get("v_leak", np.zeros_like(threshold)).reshape(-1)
    reset = values.get("v_reset", rest).reshape(-1)
    if bool(np.any(reset != rest)):
        at = int(np.flatnonzero(reset != rest)[0])
        raise ModelError(f"'{name}', neuron {at}: resets to {reset[at]:.6g}, rests at {rest[at]:.6g}; needed the same")
    if kind == "IF":
        return from_decays(len(threshold), 1.0, threshold, gain=r, reset="zero")
    tau = values["tau" if kind == "LIF" else "tau_mem"].reshape(-1)
    share = _share(name, dt, tau)
    if kind == "LIF":
        return from_decays(len(threshold), 1 - share, threshold - rest, gain=r * share, reset="zero")
    synapse = _share(name, dt, values["tau_syn"].reshape(-1))
    return from_decays(
        len(threshold),
        1 - share,
        threshold - rest,
        current_keeps=1 - synapse,
        gain=r * share * synapse * values["w_in"].reshape(-1),
        reset="zero",
    )


def _share(name: str, dt: float, tau: FloatArray) -> FloatArray:
    if not np.isfinite(tau).all():
        at = int(np.flatnonzero(~np.isfinite(tau))[0])
        raise ModelError(f"'{name}', neuron {at}: a time constant of {tau[at]:.6g} s; needed a finite one, or an IF")
    if bool(np.any(tau < dt)):
        at = int(np.flatnonzero(tau < dt)[0])
        raise ModelError(f"'{name}', neuron {at}: a time constant of {tau[at]:.6g} s; needed steps of at most that: dt")
    return dt / tau


def _number(module: nn.Module, name: str) -> FloatArray:
    return _value(getattr(module, name))


def _value(number: object) -> FloatArray:
    detached = number.detach().cpu() if hasattr(number, "detach") else number
    return np.asarray(detached, dtype=np.float64)

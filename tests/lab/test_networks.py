"""Networks of `qrsolve train`: the contract of all, and each one's arithmetic by hand."""

from __future__ import annotations

import copy
import importlib
import pkgutil
import sys
from math import exp
from typing import Any

import pytest
import torch
from chips import ForwardWatch, types_chip
from torch import Tensor, nn

import qrsolve.lab.networks as package
from qrsolve import ModelError, QRSolveError, attach
from qrsolve.lab.data import DataSet
from qrsolve.lab.networks import NETWORKS, Mlp, Network, ResNet, Rsnn, Snn
from qrsolve.lab.networks.adaptive import AdaptiveNeurons, DelayedLinear
from qrsolve.lab.networks.rsnn import CrossingCode, RecurrentSpikingClassifier, RowCode, Timing, _readout_shares
from qrsolve.lab.networks.snn import SpikingClassifier
from qrsolve.lab.run import Recipe, accuracy_of, run_epochs
from qrsolve.training import Projector

FAN_IN, SYNAPSES = 6, 2


def tiny_data(channels: int = 1, n: int = 12) -> DataSet:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(n, channels * 64, generator=generator)
    y = torch.arange(n) % 4
    return DataSet("tiny", x, y, x, y, (channels, 8, 8))


def built(network: type[Network], data: DataSet | None = None) -> nn.Module:
    torch.manual_seed(0)
    return network().build(tiny_data() if data is None else data)


def follow(model: nn.Module, projector: Projector) -> ForwardWatch:
    """Watch every forward pass, each population with the magnitudes that it has then."""
    watcher = ForwardWatch(model, [list(p.names) for p in projector.plan.populations], FAN_IN, SYNAPSES)

    def update(module: nn.Module, inputs: object) -> None:
        for state in projector._states:
            assert state.parameters is not None
            watcher.magnitudes[state.population.names[0]] = state.parameters[0].tolist()

    model.register_forward_pre_hook(update, prepend=True)
    return watcher


def test_every_network_file_is_in_the_list() -> None:
    found = set()
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found |= {
            c
            for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, Network) and c is not Network and c.__module__ == module.__name__
        }
    assert found == set(NETWORKS)
    assert [cls.name for cls in NETWORKS] == [cls.__module__.rsplit(".", 1)[1] for cls in NETWORKS]


@pytest.mark.parametrize("is_mixed", [False, True], ids=["single", "autocast"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda cls: cls.name)
def test_every_forward_pass_is_deployable_and_a_step_moves_the_weights(network: type[Network], is_mixed: bool) -> None:
    data = tiny_data()
    model = built(network, data)
    watchers: list[ForwardWatch] = []
    projectors: list[Projector] = []

    def attach_watched(optimizer: torch.optim.Optimizer) -> None:
        projectors.append(attach(types_chip(FAN_IN, SYNAPSES), model, optimizer, centre=True))
        watchers.append(follow(model, projectors[0]))

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = Recipe(epochs=1, batch_size=6, learning_rate=0.01, is_mixed=is_mixed)
    run_epochs(model, data, recipe, attach_watched, "", None)
    accuracy_of(model, data)
    (watcher,), (projector,) = watchers, projectors
    assert set(projector.left_out) <= {"recurrent.delays"}
    assert watcher.n_passes == 3
    assert 0 < watcher.worst <= FAN_IN
    assert projector.check().is_compliant
    has_gradient = False
    for name in projector.plan.names:
        moved = model.get_parameter(name)
        assert moved.dtype is torch.float32
        assert not torch.equal(moved, before[name])
        assert moved.grad is not None
        assert bool(torch.isfinite(moved.grad).all())
        has_gradient |= bool(moved.grad.any())
    assert has_gradient


@pytest.mark.parametrize("network", NETWORKS, ids=lambda cls: cls.name)
def test_state_dict_round_trip_and_copies(network: type[Network]) -> None:
    data = tiny_data()
    model = built(network)
    model(data.x_train).sum().backward()  # what a training leaves behind must not stop a copy
    model.eval()
    expected = model(data.x_test)
    assert expected.shape == (12, 4)
    assert len(expected.unique()) > 1
    torch.manual_seed(1)
    other = network().build(data).eval()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(other(data.x_test), expected)
    assert torch.equal(copy.deepcopy(model)(data.x_test), expected)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda cls: cls.name)
def test_networks_take_colour_images_and_know_their_shapes_on_no_device(network: type[Network]) -> None:
    data = tiny_data(channels=3)
    assert built(network, data)(data.x_train).shape == (12, 4)
    with torch.device("meta"):
        blank = network().build(data)
    shapes = {name: p.shape for name, p in built(network, data).named_parameters()}
    assert {name: p.shape for name, p in blank.named_parameters()} == shapes


@pytest.mark.parametrize("network", [Mlp, ResNet])
def test_steps_are_refused_where_there_is_no_time(network: type[Network]) -> None:
    with pytest.raises(QRSolveError) as error:
        network(8)
    assert str(error.value) == f"--steps is 8, but {network.name} has no time steps; leave it out"


def test_steps_of_spiking_networks() -> None:
    data = tiny_data()
    with pytest.raises(QRSolveError, match="--steps is 0; needed at least 1"):
        Snn(0)
    assert Snn(3).build(data).n_steps == 3
    assert isinstance(Rsnn(8).build(data).code, RowCode)
    assert isinstance(Rsnn(64).build(data).code, CrossingCode)
    with pytest.raises(QRSolveError) as error:
        Rsnn(9).build(data)
    assert str(error.value) == "--steps is 9; rsnn reads tiny in 8 steps, a row each, or 64, a pixel each"
    with pytest.raises(QRSolveError) as error:
        Rsnn(64).build(tiny_data(channels=3))
    assert str(error.value) == "--steps is 64; rsnn reads tiny in 8 steps, a row each"


@pytest.mark.parametrize("network", [Snn, Rsnn])
def test_missing_snntorch_is_one_clear_line(network: type[Network], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("snntorch", "snntorch.surrogate"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError) as error:
        network().build(tiny_data())
    assert str(error.value) == "spiking networks need snnTorch: pip install 'qrsolve[snn]'"


def test_snn_counts_the_spikes_of_its_membranes() -> None:
    """``v <- v + (input - v) / 2``; above 1 a spike, and from 0 again."""
    torch.manual_seed(0)
    model = SpikingClassifier(5, 7, 3, n_steps=8)
    nn.init.normal_(model.hidden.weight, std=1.5)
    nn.init.normal_(model.output.weight, std=1.5)
    x = torch.rand(4, 5)
    current = x @ model.hidden.weight.T
    v, u = torch.zeros(4, 7), torch.zeros(4, 3)
    counts = torch.zeros(4, 3)
    for _ in range(8):
        v = v + (current - v) / 2
        spikes = (v > 1).float()
        v = v * (1 - spikes)
        u = u + (spikes @ model.output.weight.T - u) / 2
        answers = (u > 1).float()
        u = u * (1 - answers)
        counts += answers
    assert 0 < int(counts.sum()) < 4 * 3 * 8
    assert torch.equal(model(x), counts)
    assert [p.shape for p in Snn().build(tiny_data()).parameters()] == [(800, 64), (4, 800)]


def test_adaptive_neurons_by_hand() -> None:
    """One adaptive and one regular neuron under a constant current, step by step in plain numbers."""
    neurons = AdaptiveNeurons(
        1, 1, membrane_ms=20.0, adaptation_ms=50.0, refractory_ms=2.0, threshold=0.1, strength=2.0
    )
    a, r = exp(-1 / 20), exp(-1 / 50)
    state = neurons.start(1)
    for j, strength in enumerate((2.0, 0.0)):
        v = b = z = 0.0
        last, fired, expected = -10, [], []
        state = neurons.start(1)
        for t in range(60):
            state = neurons(torch.full((1, 2), 0.4), state)
            b = r * b + (1 - r) * z
            threshold = 0.1 + strength * b
            v = a * v + (1 - a) * 0.4 - threshold * z
            z = float(v > threshold and t - last > 2)
            last = t if z else last
            expected.append(z)
            fired.append(float(state.spikes[0, j]))
        assert fired == expected
        assert sum(fired) > 2
    # The adaptive neuron is the slower one.
    assert float(state.adaptation[0, 0]) > 0
    assert (AdaptiveNeurons(1, 0, 5.0).n_refractory, AdaptiveNeurons(1, 0, 28.0).n_refractory) == (1, 0)


def test_surrogate_gradient_is_a_damped_triangle() -> None:
    neurons = AdaptiveNeurons(0, 1, 1.0, threshold=1.0)
    current = torch.zeros(1, 1, requires_grad=True)
    state = neurons.start(1)._replace(membrane=torch.full((1, 1), 0.9))
    neurons(current, state).spikes.sum().backward()
    a = exp(-1 / 20)
    assert current.grad is not None
    assert float(current.grad) == pytest.approx(0.3 * (1 - abs(a * 0.9 - 1)) * (1 - a), rel=1e-5)


def test_delayed_synapses_by_hand() -> None:
    torch.manual_seed(0)
    layer = DelayedLinear(4, 3)
    assert sorted(layer.delays.unique().tolist()) == [1, 2, 3]
    spikes = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    arriving = layer(spikes).detach()
    for sample in range(2):
        for delay in (1, 2, 3):
            for neuron in range(4):
                total = sum(
                    float(layer.weight.detach()[neuron, source])
                    for source in range(4)
                    if spikes[sample, source] and int(layer.delays[neuron, source]) == delay
                )
                assert float(arriving[sample, delay - 1, neuron]) == pytest.approx(total, abs=1e-6)


def test_a_recurrent_spike_arrives_after_its_delay() -> None:
    """One input spike, one recurrent weight of delay 2: the second neuron fires two steps after the first."""
    model = RecurrentSpikingClassifier(RowCode((1, 196, 2)), 196, 4)
    assert model.recurrent.n_delays == 2
    with torch.no_grad():
        model.input.weight.zero_()
        model.recurrent.weight.zero_()
        model.input.weight[200, 0] = 100.0  # regular neurons: 200 is driven, 201 listens
        model.recurrent.weight[201, 200] = 100.0
        model.recurrent.delays[201, 200] = 2
    seen: list[Tensor] = []
    model.readout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.zeros(1, 392)
    image[0, 3 * 2] = 1.0  # first column of the fourth row
    model(image)
    fired = seen[0][0].nonzero().tolist()
    assert [3, 200] in fired
    assert min(step for step, neuron in fired if neuron == 201) == 5
    assert {neuron for _, neuron in fired} == {200, 201}


@pytest.mark.parametrize(
    ("n_steps", "membrane", "adaptation", "refractory", "delays", "trace", "n_read", "threshold"),
    [(784, 20, 700, 5, 9, 20, 56, 0.01), (196, 5, 175, 1, 2, 5, 14, 0.0371677), (28, 4, 25, 0, 1, 5, 5, 0.0453544)],
)
def test_times_scale_with_the_number_of_steps(
    n_steps: int,
    membrane: float,
    adaptation: float,
    refractory: int,
    delays: int,
    trace: float,
    n_read: int,
    threshold: float,
) -> None:
    """All in steps; pixel by pixel they are the published ones, row by row nothing is longer than the image."""
    side = 784 // n_steps
    model = RecurrentSpikingClassifier(RowCode((1, n_steps, side)), n_steps, 10)
    neurons, timing = model.neurons, Timing.of(n_steps)
    assert neurons.decay == pytest.approx(exp(-1 / membrane))
    assert neurons.adaptation_decay == pytest.approx(exp(-1 / adaptation))
    assert neurons.n_refractory == refractory
    assert (model.recurrent.n_delays, timing.n_read) == (delays, n_read)
    assert timing.trace_ms / timing.step_ms == pytest.approx(trace)
    assert neurons.threshold == pytest.approx(threshold, rel=1e-4)


def test_crossing_code_by_hand() -> None:
    code = CrossingCode(4)
    assert (code.n_channels, code.n_prompt) == (81, 1)
    spikes = code(torch.tensor([[0.0, 1.0, 0.51, 0.51]]))[0]
    assert spikes.shape == (5, 81)
    assert not spikes[0].any()
    assert spikes[1].nonzero().flatten().tolist() == list(range(40))  # up through all levels
    # Levels (i + 1/2) / 40 above 0.51 are those from i = 20 on; they are crossed downward.
    assert spikes[2].nonzero().flatten().tolist() == [40 + i for i in range(20, 40)]
    assert not spikes[3].any()
    assert spikes[4].nonzero().flatten().tolist() == [80]


def test_readout_is_a_leaky_integrator_averaged_over_the_end() -> None:
    n_steps = 12
    k = exp(-1 / 5)
    drive = torch.rand(n_steps, dtype=torch.float64)
    y, trace = 0.0, []
    for value in drive.tolist():
        y = k * y + (1 - k) * value
        trace.append(y)
    expected = sum(trace[-5:]) / 5
    assert float(_readout_shares(n_steps, Timing.of(28)).double() @ drive) == pytest.approx(expected, rel=1e-6)


def test_recurrent_population_shares_its_fan_in() -> None:
    model = built(Rsnn)
    projector = Projector(types_chip(FAN_IN, SYNAPSES), model)
    assert [p.names for p in projector.plan.populations] == [("input.weight", "recurrent.weight"), ("readout.weight",)]
    assert model.get_parameter("recurrent.weight").shape == (264, 264)
    strengths: Any = model.get_submodule("neurons").strengths
    assert int((strengths > 0).sum()) == 120


def test_resnet_is_resnet_20() -> None:
    model = built(ResNet, DataSet("cifar", *(torch.zeros(1, 3072), torch.tensor([9])) * 2, (3, 32, 32)))
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 20
    assert sum(p.numel() for p in model.parameters()) == 269_722  # "0.27 M" in the paper's table 6
    fan_ins = [m.weight[0].numel() for m in layers]
    assert fan_ins == [27] + [144] * 7 + [288] * 6 + [576] * 5 + [64]

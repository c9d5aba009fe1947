"""Training loops as other projects write them, with and without a chip: what is added, what is over a limit, the loss.

    python examples/benchmarks/loops.py
    python examples/benchmarks/loops.py snntorch lightning --steps 60

Each loop trains twice from the same start: alone, and under a chip (weights of 4 bits with one free scale per layer,
few inputs per neuron, ``always``). Lines that are added for the chip end in ``# added``. Every forward pass is counted
here, without the package: connections of each neuron, and values of each layer. Loops of packages that are not
installed are left out.
"""

from __future__ import annotations

import argparse
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import qrsolve

MOST_VALUES = 15
"""Of a grid of four bits that is symmetric: -7 to 7."""


def chip_of(fan_in: int) -> qrsolve.HardwareSpec:
    """Return a chip of 4 bits with a fan-in."""
    return qrsolve.HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": f"four_bits_{fan_in}",
            "title": "Four bits, few inputs",
            "weights": {"kind": "grid", "bits": 4, "scale": {"kind": "free", "scope": "layer"}},
            "limits": [{"kind": "fan_in", "max": fan_in, "counts": "sources"}],
        }
    )


@dataclass
class Run:
    """One training: alone, or under a chip. Loops call it on the lines that are added.

    Parameters
    ----------
    fan_in : int
        Sources that a neuron may have.
    n_steps : int
        Steps of the optimizer.
    is_projected : bool
        Whether there is a chip.
    """

    fan_in: int
    n_steps: int
    is_projected: bool
    n_passes: int = 0
    n_over: int = 0
    projector: Any = None
    said: list[str] = field(default_factory=list)

    def watch(self, model: nn.Module, *populations: Sequence[str], is_transposed: bool = False) -> Callable[..., None]:
        """Count before every forward pass of a model; a population's matrices are named together.

        Returns what counts, for models that do not run hooks.
        """
        held = [[model.get_parameter(name) for name in names] for names in populations]

        def count(*_: object) -> None:
            self.n_passes += 1
            self.n_over += any(self._is_over([p.T if is_transposed else p for p in part]) for part in held)

        model.register_forward_pre_hook(count)
        return count

    def _is_over(self, matrices: Sequence[Tensor]) -> bool:
        rows = torch.cat([matrix.detach().flatten(1) for matrix in matrices], dim=1)
        return bool((rows != 0).sum(dim=1).max() > self.fan_in) or len(rows.unique()) > MOST_VALUES

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Attach, where there is a chip; a user writes ``projector = qrsolve.attach(chip, model, optimizer)``."""
        if self.is_projected:
            self.projector = qrsolve.attach(chip_of(self.fan_in), model, optimizer, total_steps=self.n_steps)

    def finalize(self) -> None:
        """Finalize, where there is a chip; a user writes ``projector.finalize()``."""
        if self.projector is not None:
            self.projector.finalize()
            assert self.projector.check().is_compliant


def digits() -> tuple[Tensor, Tensor]:
    """Return 1,500 images of 8 x 8 from scikit-learn, and their classes."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:1500], dtype=torch.float32) / 16, torch.tensor(y[:1500])


def batches(n: int, size: int = 64) -> list[Tensor]:
    """Return indices of some batches."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 1500, (size,), generator=generator) for _ in range(n)]


def cross_entropy_of(answer: Callable[[Tensor], Tensor]) -> float:
    """Return the loss of a classifier on all digits."""
    x, y = digits()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(answer(x), y))


class Convolutional(nn.Module):
    """Two convolutions, dropout, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.dropout = nn.Dropout(0.25)
        self.fc1, self.fc2 = nn.Linear(64, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return log probabilities of images, shape (batch, 1, 8, 8)."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        x = self.dropout(nn.functional.max_pool2d(x, 2).flatten(1))
        return nn.functional.log_softmax(self.fc2(torch.relu(self.fc1(x))), dim=1)


def pytorch_mnist(run: Run) -> float:
    """Train a convolutional network: Adadelta, a scheduler per epoch, a test after each."""
    model = Convolutional()
    run.watch(model, ["conv1.weight"], ["conv2.weight"], ["fc1.weight"], ["fc2.weight"])
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    run.attach(model, optimizer)  # added
    x, y = digits()
    x = x.reshape(-1, 1, 8, 8)
    for epoch in torch.arange(run.n_steps).chunk(4):
        model.train()
        for i in batches(len(epoch)):
            optimizer.zero_grad()
            nn.functional.nll_loss(model(x[i]), y[i]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            model(x)
        scheduler.step()
    run.finalize()  # added
    return cross_entropy_of(lambda images: model(images.reshape(-1, 1, 8, 8)))


class LanguageModel(nn.Module):
    """An LSTM whose decoder has the weight of its table of words."""

    def __init__(self, n_words: int, size: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(n_words, size)
        self.rnn = nn.LSTM(size, size)
        self.decoder = nn.Linear(size, n_words)
        self.decoder.weight = self.encoder.weight

    def forward(self, words: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return scores of the next word at each place, and the state."""
        out, state = self.rnn(self.encoder(words), state)
        return self.decoder(out), state


def pytorch_language_model(run: Run) -> float:
    """Train a tied LSTM language model on a Markov chain: states carried on and detached, clipped gradients."""
    n_words = 40
    generator = torch.Generator().manual_seed(2)
    follows = torch.multinomial(torch.ones(n_words, n_words), 3, generator=generator)
    text = [0]
    for pick in torch.randint(0, 3, (16 * 35 * 40,), generator=generator).tolist():
        text.append(int(follows[text[-1], pick]))
    columns = torch.tensor(text[1:]).reshape(16, -1).T
    model = LanguageModel(n_words, 48)
    run.watch(model, ["decoder.weight"], ["rnn.weight_ih_l0", "rnn.weight_hh_l0"])
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    run.attach(model, optimizer)  # added
    state, loss = None, torch.zeros(())
    for i in range(run.n_steps):
        at = 35 * (i % 39)
        if state is not None:
            state = (state[0].detach(), state[1].detach())
        optimizer.zero_grad()
        scores, state = model(columns[at : at + 35], state)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), columns[at + 1 : at + 36].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
    run.finalize()  # added
    with torch.no_grad():
        scores, _ = model(columns[:-1], None)
    return float(nn.functional.cross_entropy(scores.flatten(0, 1), columns[1:].flatten()))


class Sequence2(nn.Module):
    """Two LSTM cells and a linear layer, which predict the next value of a wave."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm1, self.lstm2, self.linear = nn.LSTMCell(1, 24), nn.LSTMCell(24, 24), nn.Linear(24, 1)

    def forward(self, waves: Tensor) -> Tensor:
        """Return a prediction for each place of waves, shape (batch, places)."""
        h1, c1, h2, c2 = (torch.zeros(len(waves), 24, dtype=waves.dtype) for _ in range(4))
        out = []
        for value in waves.split(1, dim=1):
            h1, c1 = self.lstm1(value, (h1, c1))
            h2, c2 = self.lstm2(h1, (h2, c2))
            out.append(self.linear(h2))
        return torch.cat(out, dim=1)


def pytorch_time_sequence(run: Run) -> float:
    """Train two LSTM cells in double precision: L-BFGS with a closure."""
    places = torch.arange(60, dtype=torch.float64)
    waves = torch.sin((places + torch.randint(-80, 80, (20, 1))) / 8)
    model = Sequence2().double()
    run.watch(
        model,
        ["lstm1.weight_ih", "lstm1.weight_hh"],
        ["lstm2.weight_ih", "lstm2.weight_hh"],
        ["linear.weight"],
    )
    criterion = nn.MSELoss()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.8)
    run.n_steps = max(run.n_steps // 12, 2)
    run.attach(model, optimizer)  # added
    for _ in range(run.n_steps):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = criterion(model(waves[:, :-1]), waves[:, 1:])
            loss.backward()
            return loss

        optimizer.step(closure)
    run.finalize()  # added
    with torch.no_grad():
        return float(criterion(model(waves[:, :-1]), waves[:, 1:]))


def snntorch(run: Run) -> float:
    """Train leaky neurons of snnTorch in a loop over time, the loss summed over all of it."""
    import snntorch as snn
    from snntorch import surrogate

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            spike = surrogate.fast_sigmoid()
            self.fc1, self.lif1 = nn.Linear(64, 60), snn.Leaky(beta=0.9, spike_grad=spike)
            self.fc2, self.lif2 = nn.Linear(60, 10), snn.Leaky(beta=0.9, spike_grad=spike)

        def forward(self, x: Tensor) -> Tensor:
            mem1, mem2, record = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for _ in range(10):
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                _, mem2 = self.lif2(self.fc2(spk1), mem2)
                record.append(mem2)
            return torch.stack(record)

    net = Net()
    run.watch(net, ["fc1.weight"], ["fc2.weight"])
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3, betas=(0.9, 0.999))
    run.attach(net, optimizer)  # added
    x, y = digits()
    for i in batches(run.n_steps):
        record = net(x[i])
        loss = torch.zeros(())
        for out in record:
            loss = loss + nn.functional.cross_entropy(out, y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run.finalize()  # added
    return cross_entropy_of(lambda images: net(images).mean(dim=0))


def spikingjelly(run: Run) -> float:
    """Train a sequential network of SpikingJelly over several steps, reset after each batch."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    net = nn.Sequential(
        layer.Linear(64, 60),
        neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan()),
        layer.Linear(60, 10),
        neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan()),
    )
    run.watch(net, ["0.weight"], ["2.weight"])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    run.attach(net, optimizer)  # added
    x, y = digits()

    def rates(images: Tensor) -> Tensor:
        out: Tensor = sum(net(4 * images) for _ in range(8)) / 8
        functional.reset_net(net)
        return out

    for i in batches(run.n_steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(rates(x[i]), nn.functional.one_hot(y[i], 10).float())
        loss.backward()
        optimizer.step()
    run.finalize()  # added
    with torch.no_grad():
        return float(nn.functional.mse_loss(rates(x), nn.functional.one_hot(y, 10).float()))


def norse(run: Run) -> float:
    """Train a recurrent cell of Norse whose state is passed on, and a leaky readout."""
    from norse.torch import LICell, LIFRecurrentCell

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.fc, self.out = LIFRecurrentCell(64, 40), nn.Linear(40, 10, bias=False), LICell()

        def forward(self, x: Tensor) -> Tensor:
            state, out_state, voltages = None, None, []
            for _ in range(12):
                spikes, state = self.hidden(10 * x, state)
                voltage, out_state = self.out(self.fc(spikes), out_state)
                voltages.append(voltage)
            return torch.stack(voltages).amax(dim=0)

    net = Net()
    run.watch(net, ["hidden.input_weights", "hidden.recurrent_weights"], ["fc.weight"])
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    run.attach(net, optimizer)  # added
    x, y = digits()
    for i in batches(run.n_steps):
        optimizer.zero_grad()
        nn.functional.nll_loss(nn.functional.log_softmax(net(x[i]), dim=1), y[i]).backward()
        optimizer.step()
    run.finalize()  # added
    return cross_entropy_of(net)


def sinabs(run: Run) -> float:
    """Train a sequential network of sinabs over (batch, time, inputs), states reset before each batch."""
    import sinabs.layers as sl

    net = nn.Sequential(nn.Linear(64, 60), sl.LIF(tau_mem=10.0), nn.Linear(60, 10), sl.ExpLeak(tau_mem=10.0))
    run.watch(net, ["0.weight"], ["2.weight"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    run.attach(net, optimizer)  # added
    x, y = digits()

    def scores(images: Tensor) -> Tensor:
        for each in net:
            if isinstance(each, sl.StatefulLayer):
                each.reset_states()
        out: Tensor = net(8 * images[:, None].expand(-1, 10, -1)).mean(dim=1)
        return out

    for i in batches(run.n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores(x[i]), y[i]).backward()
        optimizer.step()
    run.finalize()  # added
    return cross_entropy_of(scores)


def rockpool(run: Run) -> float:
    """Train a tree of Rockpool's modules: weights stored inputs x outputs, parameters as a tree."""
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules import LIFTorch, LinearTorch
    from rockpool.parameters import Constant

    net = Sequential(
        LinearTorch((64, 60)),
        LIFTorch(60, tau_mem=Constant(20e-3), tau_syn=Constant(20e-3), dt=1e-3),
        LinearTorch((60, 10)),
    )
    count = run.watch(net, ["0_LinearTorch.weight"], ["2_LinearTorch.weight"], is_transposed=True)
    optimizer = torch.optim.Adam(net.parameters().astorch(), lr=5e-3)
    run.attach(net, optimizer)  # added
    x, y = digits()

    def scores(images: Tensor) -> Tensor:
        net.reset_state()
        count()
        out: Tensor = net(images[:, None].expand(-1, 20, -1))[0].mean(dim=1)
        return out

    for i in batches(run.n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores(x[i]), y[i]).backward()
        optimizer.step()
    run.finalize()  # added
    return cross_entropy_of(scores)


def lightning(run: Run) -> float:
    """Train a module of Lightning, whose Trainer passes closures to the optimizer's step."""
    import lightning as pl
    from torch.utils.data import DataLoader, TensorDataset

    class Module(pl.LightningModule):  # type: ignore[misc]  # not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 10))
            run.watch(self.net, ["0.weight"], ["2.weight"])

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            optimizer = torch.optim.Adam(self.parameters(), lr=5e-3)
            run.attach(self, optimizer)  # added
            return optimizer

    x, y = digits()
    order = torch.cat(batches(run.n_steps))
    module = Module()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(x[order], y[order]), batch_size=64))
    run.finalize()  # added
    return cross_entropy_of(module.net)


def _accelerate(run: Run, *, is_prepared_first: bool) -> float:
    from accelerate import Accelerator

    net = nn.Sequential(nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 10))
    run.watch(net, ["0.weight"], ["2.weight"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.n_steps)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    if not is_prepared_first:
        run.attach(net, optimizer)  # added
    model, optimizer, scheduler = accelerator.prepare(net, optimizer, scheduler)
    if is_prepared_first:
        run.attach(model, optimizer)
    x, y = digits()
    for i in batches(2 * run.n_steps):
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(x[i]), y[i]))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    run.finalize()  # added
    return cross_entropy_of(net)


def accelerate_before(run: Run) -> float:
    """Train with accelerate and accumulation, attached before ``prepare``."""
    return _accelerate(run, is_prepared_first=False)


def accelerate_after(run: Run) -> float:
    """Train with accelerate and accumulation, attached to what ``prepare`` returned."""
    return _accelerate(run, is_prepared_first=True)


class Block(nn.Module):
    """A block of a transformer: causal attention and a small network, each added to what came in."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.proj = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape, (batch, places, size)."""
        n, places, size = x.shape
        q, k, v = (part.reshape(n, places, 4, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=2))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(n, places, size))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A small GPT over 32 characters."""

    def __init__(self, size: int = 48) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(32, size), nn.Embedding(24, size)
        self.blocks = nn.Sequential(Block(size), Block(size))
        self.head = nn.Linear(size, 32, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        """Return scores of the next character at each place."""
        out: Tensor = self.head(self.blocks(self.tokens(words) + self.places(torch.arange(words.shape[1]))))
        return out


def gpt(run: Run) -> float:
    """Train a small GPT with accumulation, bfloat16 autocast and clipping, on sums of characters."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randint(0, 32, (4000, 25), generator=generator)
    for place in range(2, 25):
        text[:, place] = (text[:, place - 1] + text[:, 0]) % 32
    model = Transformer()
    names = [f"blocks.{i}.{name}.weight" for i in range(2) for name in ("qkv", "proj", "mlp.0", "mlp.2")]
    run.watch(model, *([name] for name in names), ["head.weight"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    run.attach(model, optimizer)  # added
    for _ in range(run.n_steps):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(2):
            rows = text[torch.randint(0, 3500, (32,), generator=generator)]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = model(rows[:, :-1])
                loss = nn.functional.cross_entropy(scores.flatten(0, 1).float(), rows[:, 1:].flatten())
            (loss / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    run.finalize()  # added
    with torch.no_grad():
        scores = model(text[3500:, :-1])
        return float(nn.functional.cross_entropy(scores.flatten(0, 1), text[3500:, 1:].flatten()))


LOOPS: dict[str, tuple[Callable[[Run], float], int, int]] = {
    "pytorch_mnist": (pytorch_mnist, 8, 300),
    "pytorch_language_model": (pytorch_language_model, 24, 200),
    "pytorch_time_sequence": (pytorch_time_sequence, 16, 120),
    "snntorch": (snntorch, 16, 300),
    "spikingjelly": (spikingjelly, 16, 300),
    "norse": (norse, 24, 200),
    "sinabs": (sinabs, 16, 300),
    "rockpool": (rockpool, 16, 200),
    "lightning": (lightning, 16, 300),
    "accelerate_before": (accelerate_before, 16, 300),
    "accelerate_after": (accelerate_after, 16, 300),
    "gpt": (gpt, 24, 200),
}
"""Each loop with a fan-in that binds, and its steps."""


def n_added(loop: Callable[[Run], float]) -> int:
    """Return how many lines of a loop are there for the chip."""
    body = _accelerate if loop in (accelerate_before, accelerate_after) else loop
    return inspect.getsource(body).count("# added")


@dataclass(frozen=True)
class Result:
    """What came of a loop, alone and under the chip."""

    alone: Run
    projected: Run
    loss_alone: float
    loss_projected: float
    warnings: list[str]


def result_of(name: str, n_steps: int | None = None) -> Result:
    """Train a loop twice.

    Raises
    ------
    ImportError
        Its package is not installed.
    """
    loop, fan_in, steps = LOOPS[name]
    losses, runs, said = [], [], []
    for is_projected in (False, True):
        torch.manual_seed(0)
        run = Run(fan_in, n_steps or steps, is_projected)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            losses.append(loop(run))
        runs.append(run)
        said.append({str(warning.message).splitlines()[0] for warning in caught})
    return Result(runs[0], runs[1], losses[0], losses[1], sorted(said[1] - said[0]))


def main() -> None:
    """Train and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LOOPS)}; all unless given")
    parser.add_argument("--steps", type=int, help="of the optimizer, instead of each loop's own number")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in LOOPS]
    if unknown:
        parser.error(f"no loop '{unknown[0]}'; there are {', '.join(LOOPS)}")
    torch.set_num_threads(options.threads)
    print("loop                    lines  passes  over alone  over projected   loss alone  loss projected  warnings")
    for name in options.names or LOOPS:
        try:
            result = result_of(name, options.steps)
        except ImportError as error:
            print(f"{name:24}left out: {error}")
            continue
        print(
            f"{name:24}{n_added(LOOPS[name][0]):5}{result.projected.n_passes:8,}{result.alone.n_over:12,}"
            f"{result.projected.n_over:16,}{result.loss_alone:13.4f}{result.loss_projected:16.4f}"
            f"{len(result.warnings):10}",
            flush=True,
        )
        for text in result.warnings:
            print(f"    {text}")


if __name__ == "__main__":
    main()

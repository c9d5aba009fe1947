"""Activation-aware projection: seconds of a layer beside its Cholesky factorisation, and accuracy on MNIST.

    python examples/benchmarks/quadratic.py --shapes 256x784 1024x1024 1024x4096 --fan-in 64 16 8 --threads 2
    python examples/benchmarks/quadratic.py --data-dir ../shared/data --fan-in 64 16 8 --threads 2 --bound

Four learned synapse types, two of each sign, up to eight synapses per connection, copies counted, as on DYNAP-SE. The
first call times random layers of correlated rectified inputs. The second trains a dense MLP 784-256-10, projects it
layer by layer without labels (no training afterwards), and prints one JSON line per fan-in. ``diagonal``: the ordinary
projection with importance diag C; ``bound``: the share of the objective of the first layer that is proved.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qrsolve.certificate.quadratic_bound import certify_quadratic
from qrsolve.lab.data import DataSet, load_mnist
from qrsolve.problem.alphabet import AlphabetFamily
from qrsolve.problem.choice import ChoiceProblem
from qrsolve.problem.group import Group
from qrsolve.problem.quadratic import QuadraticValuesProblem
from qrsolve.problem.solution import Solution
from qrsolve.solvers import quick_solver, solve
from qrsolve.solvers.quadratic import find_evidence, solve_quadratic_values
from qrsolve.solvers.quadratic.learning import diagonal_start
from qrsolve.spec import HardwareSpec

DAMPING = 1e-3
"""Of the mean variance."""
SAMPLES = 20_000


def choose(problem: ChoiceProblem, near: Solution | None) -> Solution:
    """Solve a choice problem as `qrsolve.project` does while it learns values."""
    return solve(problem, quick_solver(problem), near)


def types() -> AlphabetFamily:
    """Return all sums of up to eight synapses of four types."""
    names = (("fast_exc", "positive"), ("slow_exc", "positive"), ("fast_inh", "negative"), ("slow_inh", "negative"))
    weights = {
        "kind": "synapse_types",
        "types": [{"name": name, "sign": sign} for name, sign in names],
        "composition": {"max_synapses": 8},
    }
    chip = HardwareSpec.model_validate({"schema": 1, "name": "types", "title": "Four types", "weights": weights})
    assert chip.weights is not None
    family = chip.weights.family()
    assert family is not None
    return family


def values_of(problem: QuadraticValuesProblem, parameters: Tensor, choice: Tensor | None) -> Tensor:
    """Return the weights that options stand for."""
    assert choice is not None
    return problem.family.alphabet(parameters).values[0][choice]


def time_layer(rows: int, columns: int, fan_ins: list[int], effort: int) -> None:
    """Print one JSON line per fan-in for a random layer."""
    generator = torch.Generator().manual_seed(0)
    rank, n_samples = max(1, columns // 8), max(2000, columns)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = torch.relu(normal(n_samples, rank) @ normal(rank, columns) / rank**0.5 + 0.5 * normal(n_samples, columns))
    moment = covariance(x, x)
    del x
    moment.diagonal().add_(DAMPING * moment.diagonal().mean())
    w = normal(rows, columns) / columns**0.5
    factorised = []
    for _ in range(3):
        began = time.perf_counter()
        torch.linalg.cholesky(moment)
        factorised.append(time.perf_counter() - began)
    for fan_in in fan_ins:
        problem = QuadraticValuesProblem(w, moment[None], types(), (Group("row", fan_in, limit="fan_in"),))
        began = time.perf_counter()
        learned = solve_quadratic_values(problem, choose, effort=effort)
        seconds = time.perf_counter() - began
        line = {
            "shape": f"{rows}x{columns}",
            "fan_in": fan_in,
            "seconds": round(seconds, 2),
            "cholesky_seconds": round(min(factorised), 4),
            "ratio": round(seconds / min(factorised)),
            "objective": learned.objectives[-1],
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "moment_gb": round(moment.numel() * 8 / 1e9, 3),
        }
        print(json.dumps(line), flush=True)


def covariance(x: Tensor, z: Tensor) -> Tensor:
    """Return the covariance of the columns of two matrices of samples."""
    return (x - x.mean(dim=0)).T @ (z - z.mean(dim=0)) / len(x)


@dataclass
class Dense:
    """Two layers: weights and biases, float64."""

    weights: list[Tensor]
    biases: list[Tensor]

    def accuracy(self, data: DataSet) -> float:
        """Return the accuracy on the test images, in per cent."""
        hidden = torch.relu(data.x_test.double() @ self.weights[0].T + self.biases[0])
        found = (hidden @ self.weights[1].T + self.biases[1]).argmax(dim=1)
        return 100 * float((found == data.y_test).double().mean())


def train_dense(data: DataSet, seed: int, epochs: int) -> Dense:
    """Train an MLP 784-256-10 with Adam."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.x_train)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(data.x_train[batch]), data.y_train[batch]).backward()
            optimizer.step()
    parameters = [p.detach().double() for p in model.parameters()]
    return Dense(parameters[::2], parameters[1::2])


def layer_problem(w: Tensor, x: Tensor, z: Tensor, fan_in: int) -> QuadraticValuesProblem:
    """Return the problem of one layer, for inputs as they now are and as the dense network has them."""
    moment = covariance(x, x)
    damping = DAMPING * float(moment.diagonal().mean()) * torch.eye(len(moment), dtype=torch.float64)
    moment = moment + damping
    targets = torch.linalg.solve(moment, (covariance(x, z) + damping) @ w.T).T.contiguous()
    return QuadraticValuesProblem(targets, moment[None], types(), (Group("row", fan_in, limit="fan_in"),))


def project_network(dense: Dense, samples: Tensor, fan_in: int, effort: int, *, is_plain: bool) -> tuple[Dense, float]:
    """Project layer by layer, each for what those before it now hand on; return the seconds of solving too."""
    x = z = samples
    found, seconds = Dense([], []), 0.0
    for w, bias in zip(dense.weights, dense.biases, strict=True):
        problem = layer_problem(w, x, z, fan_in)
        began = time.perf_counter()
        if is_plain:
            start = diagonal_start(problem, choose)
            v = values_of(problem, start.parameters, start.choice)
        else:
            learned = solve_quadratic_values(problem, choose, effort=effort)
            v = values_of(problem, learned.parameters, learned.solution.choice)
        seconds += time.perf_counter() - began
        shifted = bias + w @ z.mean(dim=0) - v @ x.mean(dim=0)
        found.weights.append(v)
        found.biases.append(shifted)
        x, z = torch.relu(x @ v.T + shifted), torch.relu(z @ w.T + bias)
    return found, seconds


def proved_share(dense: Dense, samples: Tensor, fan_in: int) -> float:
    """Return how much of the objective of the first layer is proved, for the values that were found."""
    problem = layer_problem(dense.weights[0], samples, samples, fan_in)
    learned = solve_quadratic_values(problem, choose)
    given = problem.choice(learned.parameters)
    v = values_of(problem, learned.parameters, learned.solution.choice)
    certificate = certify_quadratic(given, learned.solution, find_evidence(given, v, choose))
    return certificate.bound / certificate.objective


def main() -> None:
    """Run and print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=[], help="such as 256x784")
    parser.add_argument("--fan-in", type=int, nargs="+", default=[64, 16, 8])
    parser.add_argument("--effort", type=int, default=0)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for shape in arguments.shapes:
        rows, columns = map(int, shape.split("x"))
        time_layer(rows, columns, arguments.fan_in, arguments.effort)
    if arguments.data_dir is None:
        return
    data = load_mnist(arguments.data_dir)
    dense = train_dense(data, arguments.seed, arguments.epochs)
    samples = data.x_train[torch.randperm(len(data.x_train))[:SAMPLES]].double()
    for fan_in in arguments.fan_in:
        plain, _ = project_network(dense, samples, fan_in, 0, is_plain=True)
        found, seconds = project_network(dense, samples, fan_in, arguments.effort, is_plain=False)
        line = {
            "fan_in": fan_in,
            "dense": round(dense.accuracy(data), 2),
            "diagonal": round(plain.accuracy(data), 2),
            "accuracy": round(found.accuracy(data), 2),
            "seconds": round(seconds, 2),
        }
        if arguments.bound:
            line["bound"] = round(proved_share(dense, samples, fan_in), 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

"""Optimizers in the idiom of those outside torch.optim: their steps, and what they do between steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Sam(Optimizer):
    """Sharpness-aware minimisation: gradients at a perturbed point, by two calls or by a closure."""

    def __init__(self, parameters: Iterable[nn.Parameter], rho: float = 0.05, **options: Any) -> None:
        super().__init__(parameters, {"rho": rho, **options})
        self.base_optimizer = torch.optim.SGD(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        norm = torch.stack([p.grad.norm() for group in self.param_groups for p in group["params"]]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.data.clone()
                p.add_(p.grad * (group["rho"] / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure: Callable[[], Tensor]) -> None:  # type: ignore[override]  # needs its closure
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()


class Lookahead(Optimizer):
    """Slow weights that follow fast ones; torch's hooks are not set up, as in the version that went around."""

    def __init__(self, optimizer: Optimizer, k: int = 3, alpha: float = 0.5) -> None:
        self.optimizer, self.k, self.alpha = optimizer, k, alpha
        self.param_groups = optimizer.param_groups
        self.n_steps = 0
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.optimizer.step(closure)
        self.n_steps += 1
        if self.n_steps % self.k == 0:
            fast = [p for group in self.param_groups for p in group["params"]]
            for p, slow in zip(fast, self.slow, strict=True):
                slow.add_(p.detach() - slow, alpha=self.alpha)
                p.copy_(slow)
        return loss


class ScheduleFree(Optimizer):
    """Gradient descent without a schedule: trains at y, is used at x; the two are swapped in place."""

    beta = 0.9

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.is_training, self.n_steps = False, 0

    def _swap(self, weight: float) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if "z" in self.state[p]:
                    p.lerp_(self.state[p]["z"], weight)

    @torch.no_grad()
    def eval(self) -> None:
        if self.is_training:
            self._swap(1 - 1 / self.beta)
        self.is_training = False

    @torch.no_grad()
    def train(self) -> None:
        if not self.is_training:
            self._swap(1 - self.beta)
        self.is_training = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert self.is_training
        self.n_steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.detach().clone())
                p.lerp_(z, 1 / self.n_steps)
                p.add_(p.grad, alpha=group["lr"] * (self.beta * (1 - 1 / self.n_steps) - 1))
                z.sub_(p.grad, alpha=group["lr"])


class DistanceAdaptive(Optimizer):
    """Gradient descent whose length of step is estimated from the way from its own first weights (as Prodigy's)."""

    def __init__(self, parameters: Iterable[nn.Parameter], d: float = 1e-3) -> None:
        super().__init__(parameters, {"d": d, "numerator": 0.0, "squares": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                first = self.state[p].setdefault("first", p.detach().clone())
                group["numerator"] += group["d"] * float((p.grad * (first - p)).sum())
                group["squares"] += float(p.grad.square().sum())
            length = group["squares"] ** 0.5
            group["d"] = max(group["d"], group["numerator"] / length)
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["d"] / length)

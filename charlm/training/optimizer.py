"""What makes a step of training: the learning rate (`Schedule`), AdamW beside Adagrad for rows, averaged weights.

`Schedule` is a function of the step alone, so that a resumed run is the same run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from charlm.errors import OptionError
from charlm.training.options import Optimisation


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, the peak for a share of the steps, then a straight line down (Hu et al. 2024); or, without that
    share, a cosine down (Loshchilov and Hutter 2017).

    Args:
        peak: the highest learning rate.
        warmup: steps until it is reached.
        total: steps until the decay ends; None while that is not known yet, which is only during warm-up.
        final: the last learning rate as a share of the peak.
        hold: share of the steps after the warm-up at the peak; None for the cosine.

    >>> schedule = Schedule(peak=1.0, warmup=10, total=110, final=0.1)
    >>> schedule.at(0), schedule.at(10), round(schedule.at(60), 9), round(schedule.at(110), 9)
    (0.1, 1.0, 0.55, 0.1)
    >>> schedule = Schedule(peak=1.0, warmup=10, total=110, final=0.0, hold=0.5)
    >>> schedule.at(10), schedule.at(60), round(schedule.at(85), 9), schedule.at(110)
    (1.0, 1.0, 0.5, 0.0)
    """

    peak: float
    warmup: int
    total: int | None = None
    final: float = 0.01
    hold: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.peak < math.inf:
            raise OptionError(f"a learning rate is above 0 and finite, not {self.peak}")
        if self.warmup < 0 or (self.total is not None and self.total < 1):
            raise OptionError("a schedule has at least one step and no negative warm-up")

    def at(self, step: int) -> float:
        """The learning rate of step 0, 1, 2, ..."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.total is None or self.total <= self.warmup:
            return self.peak
        done = min((step - self.warmup) / (self.total - self.warmup), 1.0)
        if self.hold is None:
            left = (1 + math.cos(math.pi * done)) / 2
        else:
            left = 1.0 if done <= self.hold else (1 - done) / (1 - self.hold)
        return self.peak * (self.final + (1 - self.final) * left)


def adamw(module: nn.Module, options: Optimisation) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, as torch's fused step, which is the fastest on a CPU too.

    Each group of parameters has a `factor` of the learning rate. It is 1 but for the weights that the module's `rates`
    names, where it has such an attribute; the first group always has 1.
    """
    rows = getattr(module, "row_weights", None)
    rates: Mapping[str, list[Tensor]] = getattr(module, "rates", {})
    factors = {id(p): float(getattr(options, name)) for name, weights in rates.items() for p in weights}
    members: dict[tuple[float, float], list[Tensor]] = {}
    for p in (p for p in module.parameters() if p.requires_grad and p is not rows):
        members.setdefault((factors.get(id(p), 1.0), options.weight_decay if p.dim() > 1 else 0.0), []).append(p)
    groups: list[dict[str, Any]] = [
        {"params": members[factor, decay], "weight_decay": decay, "factor": factor}
        for factor, decay in sorted(members, key=lambda kind: kind[0] != 1)
    ]
    if rows is not None:
        groups.append({"params": [rows], "weight_decay": 0.0, "factor": options.row_rate / options.lr})
    return RowAdamW(rows, groups, lr=options.lr, betas=options.betas, fused=True)


class RowAdamW(torch.optim.AdamW):
    """AdamW for all weights but the rows of strings, which have Adagrad with one sum a row (Duchi et al. 2011).

    A step changes the rows alone that the gradient has. The sum of a row is that of its mean squared gradients.

    Args:
        rows: the weights [R, V] whose gradient is sparse; None where there are none.
    """

    def __init__(self, rows: Tensor | None, groups: list[dict[str, Any]], **options: Any) -> None:
        super().__init__(groups, **options)
        self.rows = rows

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step of both kinds."""
        rows, grad = self.rows, None if self.rows is None else self.rows.grad
        if rows is None or grad is None:
            return super().step(closure)
        rows.grad = None
        super().step(closure)
        grad = (grad if grad.is_sparse else grad.to_sparse(1)).coalesce()
        places_N, grad_NV = grad.indices()[0], grad.values()
        sums_R = self.state[rows].setdefault("sum", rows.new_zeros(len(rows)))
        sums_N = sums_R[places_N] + grad_NV.square().mean(1)
        sums_R[places_N] = sums_N
        rate = self.param_groups[-1]["lr"]
        rows.index_add_(0, places_N, grad_NV / (sums_N.sqrt() + 1e-20).unsqueeze(1), alpha=-rate)
        return None


class Average:
    """A running mean of a module's weights over a fixed share of the steps so far.

    After step t each averaged weight moves towards the weight by 1 / max(1, share · t): an average of polynomial
    decay (Shamir and Zhang 2013), which early on forgets the first steps as fast as it should, and needs no end of
    the run to be known. It does what a lower learning rate does, without slowing the optimiser (Polyak 1992).
    The module's `row_weights`, of which a step changes few, are not averaged.

    Args:
        module: whose weights are averaged.
        share: of the steps so far, from above 0 to 1.

    >>> line = nn.Linear(1, 1, bias=False)
    >>> average = Average(line, share=1.0)  # of all steps: the plain mean
    >>> for step, value in enumerate([1.0, 2.0, 6.0], start=1):
    ...     _ = line.weight.data.fill_(value)
    ...     average.update(step)
    >>> round(average.weights["weight"].item(), 6)
    3.0
    """

    def __init__(self, module: nn.Module, share: float) -> None:
        self.module, self.share = module, share
        rows = getattr(module, "row_weights", None)
        self.dense = {name: p for name, p in module.named_parameters() if p is not rows}
        self.weights = {
            name: p.detach().clone() if name in self.dense else p.detach() for name, p in module.named_parameters()
        }

    def update(self, step: int) -> None:
        """Moves the averaged weights towards the module's, after so many steps."""
        with torch.no_grad():
            means = [self.weights[name] for name in self.dense]
            torch._foreach_lerp_(means, [p.detach() for p in self.dense.values()], self.pace(step))

    def pace(self, step: int) -> float:
        """The share of the way to the module's weights that the averaged ones move, after so many steps."""
        return 1 / max(1.0, self.share * step)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Goes on from these averaged weights."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """A block in which the module has the averaged weights; after it the module has its own again, bit for bit."""
        own = {name: p.detach().clone() for name, p in self.dense.items()}
        with torch.no_grad():
            for name, parameter in self.dense.items():
                parameter.copy_(self.weights[name])
            try:
                yield
            finally:
                for name, parameter in self.dense.items():
                    parameter.copy_(own[name])

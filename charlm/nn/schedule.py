"""The learning rate as a function of the step alone, so that a resumed run is the same run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from charlm.errors import OptionError

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, then a cosine down to a share of the peak (Loshchilov and Hutter 2017).

    Args:
        peak: the highest learning rate.
        warmup: steps until it is reached.
        total: steps until the decay ends; None while that is not known yet, which is only during warm-up.
        final: the last learning rate as a share of the peak.

    >>> schedule = Schedule(peak=1.0, warmup=10, total=110, final=0.1)
    >>> schedule.at(0), schedule.at(10), round(schedule.at(60), 9), round(schedule.at(110), 9)
    (0.1, 1.0, 0.55, 0.1)
    """

    peak: float
    warmup: int
    total: int | None = None
    final: float = 0.01

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
        return self.peak * (self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2)

"""How a symbol is drawn from log-probabilities: temperature, top-k, top-p, and a number from the noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.errors import OptionError

__all__ = ["SamplingRule"]


@dataclass(frozen=True, kw_only=True)
class SamplingRule:
    """Temperature first, then top-k, then top-p, as is usual.

    Args:
        temperature: log-probabilities are divided by it; 0 takes the most probable symbol.
        top_k: keep the k most probable symbols; 0 keeps all.
        top_p: keep the smallest set of most probable symbols whose mass reaches p (nucleus sampling, Holtzman
            et al. 2020); 1 keeps all.

    >>> rule = SamplingRule(temperature=0.5)
    >>> logp = torch.tensor([[0.2, 0.8]]).log()
    >>> rule.probabilities(logp).tolist()  # 0.2**2 and 0.8**2 over their sum
    [[0.0588..., 0.9411...]]
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise OptionError(f"a temperature is 0 (the most probable character) or more, not {self.temperature}")
        if self.top_k < 0:
            raise OptionError(f"top-k keeps at least 1 character (0 keeps all), not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top-p is a share of probability above 0 and up to 1, not {self.top_p}")

    @property
    def greedy(self) -> bool:
        """Whether the most probable symbol is always taken, so that noise plays no part."""
        return self.temperature == 0 or self.top_k == 1

    def probabilities(self, logp_BV: Tensor) -> Tensor:
        """The distribution that is drawn from, float64; the symbols left out have probability 0.

        Log-probabilities need not be normalised, so logits will do. A row that is NaN throughout has no
        distribution; callers do not draw from one.
        """
        if self.greedy:
            best = logp_BV.argmax(-1, keepdim=True)
            return torch.zeros_like(logp_BV, dtype=torch.float64).scatter_(-1, best, 1.0)
        scaled = logp_BV.double() / self.temperature
        if 0 < self.top_k < scaled.shape[-1]:
            best = scaled.topk(self.top_k, dim=-1).indices
            scaled = torch.full_like(scaled, -torch.inf).scatter_(-1, best, scaled.gather(-1, best))
        p_BV = scaled.softmax(-1)
        return self._nucleus(p_BV) if self.top_p < 1 else p_BV

    def _nucleus(self, p_BV: Tensor) -> Tensor:
        ordered, order = p_BV.sort(stable=True, dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        kept = torch.where(before < self.top_p, ordered, torch.zeros_like(ordered))
        kept = kept / kept.sum(-1, keepdim=True)
        return torch.zeros_like(p_BV).scatter_(-1, order, kept)

    def draw(self, logp_BV: Tensor, noise_B: Tensor) -> Tensor:
        """One symbol a row by inversion: the first at which the cumulative probability exceeds the noise.

        Args:
            logp_BV: log-probabilities, or logits.
            noise_B: uniform numbers in [0, 1), float64.
        """
        if self.greedy:
            return logp_BV.argmax(-1)
        cumulative = self.probabilities(logp_BV).cumsum(-1)
        threshold = noise_B.to(cumulative.device).unsqueeze(-1) * cumulative[:, -1:]
        drawn = (cumulative <= threshold).sum(-1)
        last = (cumulative < cumulative[:, -1:]).sum(-1)  # the last symbol with any probability
        return torch.minimum(drawn, last)

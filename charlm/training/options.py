"""How a model is optimised, and where a run of it stands: numbers alone, stored as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from charlm.errors import CharlmError, OptionError

__all__ = ["Optimisation", "Progress", "adamw"]


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How a model is optimised.

    Args:
        lr: the peak learning rate of AdamW (Loshchilov and Hutter 2019).
        lr_final: the last learning rate as a share of the peak.
        warmup: steps of linear warm-up.
        betas: decay of AdamW's running means.
        weight_decay: of the weights that are matrices; biases are left alone.
        average: share of the steps so far that averaged weights look back over (`Average`); 0 for no averaging.
        clip: largest norm of the whole gradient (Pascanu et al. 2013).
        epochs, max_steps, minutes: budget; whichever ends first, None for no bound.
        patience: validations without improvement until it stops; 0 never stops early.
        validations: about how many are made over a run.
        seed: of initial weights, lanes and dropout.
    """

    lr: float = 2e-3
    lr_final: float = 0.02
    warmup: int = 50
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    average: float = 0.0
    clip: float = 1.0
    epochs: float | None = None
    max_steps: int | None = None
    minutes: float | None = None
    patience: int = 8
    validations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise OptionError(f"a learning rate is above 0 and finite, not {self.lr}")
        for name in ("epochs", "max_steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(f"--{name.replace('_', '-')} is above 0 and finite, not {value}")
        if self.epochs is None and self.max_steps is None and self.minutes is None:
            raise OptionError("training needs an end: give epochs, max_steps or minutes")
        if not 0 <= self.average <= 1:
            raise OptionError(f"average is a share of the steps from 0 to 1, not {self.average}")
        if self.clip <= 0 or self.warmup < 0 or self.patience < 0 or self.validations < 1 or self.weight_decay < 0:
            raise OptionError("clip and validations are above 0; warmup, patience and weight_decay are not negative")

    def to_json(self) -> dict[str, Any]:
        """A value for `config.json`; `from_json` reads it back."""
        return {**asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Optimisation:
        """Reads what `to_json` made; an unknown key is an error."""
        try:
            return cls(**{**value, "betas": tuple(value["betas"])})
        except (TypeError, KeyError) as error:
            raise OptionError(f"the stored options of training are not whole ({error})") from None


@dataclass
class Progress:
    """Where a run stands; numbers alone, saved as JSON with every state.

    `loss_sum` and `loss_count` gather the training loss since the last row of metrics; `total` and `every` are fixed
    after a short calibration. `position` counts the data that was read; it is `step` unless a run goes on with another
    number of lanes.
    """

    step: int = 0
    position: int = 0
    total: int | None = None
    every: int | None = None
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    since_best: int = 0
    first_loss: float | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    lr_scale: float = 1.0
    loss_sum: float = 0.0
    loss_count: int = 0
    targets: int = 0

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: infinity becomes null."""
        return {**asdict(self), "best": self.best if math.isfinite(self.best) else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        """Reads what `to_json` made."""
        found = {"position": value.get("step"), **value}
        found["best"] = math.inf if found.get("best") is None else found["best"]
        for item in fields(cls):
            number = found.setdefault(item.name, item.default)
            whole = type(number) is int and 0 <= number < 1 << 62
            optional = item.default is None and number is None
            if not (whole or optional or (str(item.type) != "int" and type(number) is float)):
                raise CharlmError(f"the saved progress of the run is not whole: {item.name} is {number!r}")
        if len(found) != len(fields(cls)) or found["every"] == 0:
            raise CharlmError("the saved progress of the run has keys that this charlm does not know")
        return cls(**found)


def adamw(module: nn.Module, options: Optimisation) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone; torch's fused step, which is the fastest on a CPU too."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, fused=True)

"""Defaults of a fit, derived from the size of its table; every option given by hand is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from charlm.sequences.fitting import FitPlan
from charlm.sequences.model import SequenceConfig
from charlm.sequences.tabular import TableFacts
from charlm.training.options import Optimisation

__all__ = ["choose_fit", "line"]

_STEPS = 2000  # that a fit of a common table takes


def choose_fit(facts: TableFacts, train_rows: int, given: Mapping[str, Any]) -> FitPlan:
    """A plan for a table; values of `given` that are not None are kept.

    Args:
        facts: what the table is.
        train_rows: rows of its training part.
        given: options by the names of `SequenceConfig` and `Optimisation`, and `batch` and `backend`.

    >>> facts = TableFacts(table="t", sha256="", rows=1000, sequence="x", label="y", input="numbers", features=1,
    ...     mode="score", split="80/10/10", base=(0.5,))
    >>> plan = choose_fit(facts, 800, {"hidden": 50, "lr": None})
    >>> plan.network.hidden, plan.batch, plan.optimisation.epochs
    (50, 32, 80.0)
    """
    asked = {name: value for name, value in given.items() if value is not None}
    batch = asked.get("batch", 16 if train_rows < 400 else 32 if train_rows < 4000 else 64)
    per_epoch = math.ceil(train_rows / max(batch, 1))
    if not {"epochs", "max_steps", "minutes"} & set(asked):
        asked["epochs"] = float(min(max(math.ceil(_STEPS / per_epoch), 5), 200))
    steps = min(asked.get("max_steps", 500), asked.get("epochs", 500) * per_epoch, 500)
    network = {
        "cell": "gru",
        "hidden": 32 if train_rows < 500 else 64 if train_rows < 5000 else 128,
        "dropout": 0.2 if train_rows < 5000 else 0.1,
        "loss": "cross-entropy" if facts.bounded else "squared",
    }
    fixed = {
        "mode": facts.mode,
        "classes": len(facts.classes) if facts.mode == "distribution" else 2,
        "features": facts.features,
        "output": "every" if facts.every else "last",
    }
    optimisation = {"lr": 5e-3 if train_rows < 5000 else 3e-3, "warmup": max(1, int(steps / 10)) if steps > 0 else 1}
    return FitPlan(
        network=SequenceConfig(**{**network, **_for(SequenceConfig, asked), **fixed}),
        optimisation=Optimisation(**{**optimisation, **_for(Optimisation, asked)}),
        batch=batch,
        backend=asked.get("backend", "rule"),
    )


def _for(owner: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in owner.__dataclass_fields__}  # type: ignore[attr-defined]


def line(plan: FitPlan) -> str:
    """The choice in one line."""
    net, opt = plan.network, plan.optimisation
    scale = "" if net.input_scale is None else f"input by {net.input_scale.kind}"
    parts = [
        f"{net.cell} {net.layers}x{net.hidden}{' both ways' if net.bidirectional else ''}",
        "" if net.features else f"embedding {net.embedding}" if net.embedding else "one-hot",
        scale,
        f"dropout {net.dropout:g}",
        f"batches of {plan.batch}",
        f"lr {opt.lr:g}",
        f"loss {net.loss}" if net.mode == "score" else "",
        opt.budget(),
        f"patience {opt.patience}",
        f"seed {opt.seed}",
        "layers frozen" if net.frozen else "",
    ]
    return ", ".join(part for part in parts if part)

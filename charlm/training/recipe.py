"""Defaults derived from what is known: the size of the text, the vocabulary, the device and the time allowed.

Every option given by hand is kept; the rest is chosen here, printed in one line and stored with the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from charlm.errors import OptionError
from charlm.files import free_memory
from charlm.nn.cells import BUILT_IN
from charlm.nn.kernels import PRECISIONS, check_precision, compiled
from charlm.recurrent import RNNConfig
from charlm.training.options import Optimisation, TrainingPlan

DEFAULT_MINUTES = 4.0
"""The time that training takes where no budget is given, ..."""

DEFAULT_EPOCHS = 24.0
"""... or how often it reads the text, if that is sooner: a small text is not read until it is known by heart."""


@dataclass(frozen=True, kw_only=True)
class Plan(TrainingPlan):
    """All that determines the training of a language model, except its text.

    Args:
        network: the model's shape.
        optimisation: how it is trained.
        lanes: pieces of the text read side by side (the batch size).
        window: steps between two truncations (the sequence length).
        backend: how layers are run; see `TrainingPlan`.
        replay_share: share of the lanes that read an older text, which is kept in the mix; 0 where there is none.
        precision: of products; see `charlm.nn.kernels.PRECISIONS`. `choose` takes bf16 on a CPU that multiplies it, and
            `auto` on a CPU is fp32 in runs of earlier versions.

    >>> from charlm.codec import decode, encode
    >>> plan = Plan(network=RNNConfig(), optimisation=Optimisation(epochs=3), lanes=16, window=64)
    >>> decode(Plan, encode(plan)) == plan
    True
    """

    network: RNNConfig
    optimisation: Optimisation
    lanes: int
    window: int
    backend: str = "rule"
    replay_share: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision}")
        if self.lanes < 1 or self.window < 1:
            raise OptionError("--batch-size and --seq-length are at least 1")
        if not 0 <= self.replay_share < 1:
            raise OptionError(f"--replay-share is a share of the batch from 0 to below 1, not {self.replay_share}")

    def line(self) -> str:
        """The choice in one line."""
        net, opt = self.network, self.optimisation
        parts = [
            f"{net.model} {net.layers}x{net.hidden}",
            f"embedding {net.embedding}" if net.embedding else "one-hot",
            f"dropout {net.dropout:g}" + (" (variational)" if net.variational else ""),
            f"weight dropout {net.weight_dropout:g}" if net.weight_dropout else "",
            f"input dropout {net.input_dropout:g}" if net.input_dropout else "",
            f"{net.grams:,} rows for strings of 2 to {net.gram_order}" if net.grams else "",
            f"looks back on {net.look_back:,} characters" if net.look_back else "",
            f"{self.lanes} lanes of {self.window} steps",
            f"{100 * self.replay_share:g} % of them replay" if self.replay_share else "",
            self.precision if self.precision != "auto" else "",
            f"lr {opt.lr:g}" + (f" ({opt.symbol_rate:g} times that for symbols)" if opt.symbol_rate != 1 else ""),
            f"weight decay {opt.weight_decay:g}",
            f"average {opt.average:g}" if opt.average else "",
            opt.budget(),
            f"seed {opt.seed}",
        ]
        return ", ".join(part for part in parts if part)


def choose(characters: int, device: torch.device, given: Mapping[str, Any], symbols: int = 64, pieces: int = 1) -> Plan:
    """A plan for a training part of so many characters; values of `given` that are not None are kept.

    Args:
        characters: targets of the training part.
        device: where training runs.
        given: options by the names of `RNNConfig` and `Optimisation`, and `lanes`, `window`, `backend`, `replay_share`,
            `precision`.
        symbols: of the vocabulary.
        pieces: documents or items that the training part consists of.

    >>> plan = choose(1_000_000, torch.device("cpu"), {"layers": 3, "minutes": 2.0, "hidden": None})
    >>> plan.network.layers, plan.optimisation.minutes
    (3, 2.0)
    """
    asked = {name: value for name, value in given.items() if value is not None}
    unbound = not {"epochs", "max_steps", "minutes"} & set(asked)
    if unbound:
        asked["minutes"] = DEFAULT_MINUTES
    asked.setdefault("look_back", _look_back(characters, symbols, device, pieces))
    chosen = _by_budget(characters, device, asked) | asked
    if unbound:
        chosen["epochs"] = DEFAULT_EPOCHS
    chosen.setdefault("grams", _grams(characters, symbols, device, chosen))
    return Plan(
        network=RNNConfig(**_for(RNNConfig, chosen)),
        optimisation=Optimisation(**_for(Optimisation, chosen)),
        lanes=chosen["lanes"],
        window=chosen["window"],
        backend=chosen.get("backend", "rule"),
        replay_share=chosen.get("replay_share", 0.0),
        precision=_precision(device, chosen),
    )


def _for(owner: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in owner.__dataclass_fields__}  # type: ignore[attr-defined]


def _precision(device: torch.device, chosen: Mapping[str, Any]) -> str:
    """`auto` becomes bf16 on a CPU that multiplies it, where layers are so wide that it is faster."""
    asked, backend = chosen.get("precision", "auto"), chosen.get("backend", "rule")
    wide = device.type == "cpu" and chosen["hidden"] >= _WIDE and backend in ("fused", "rule")
    if asked == "auto" and wide and chosen["model"] in BUILT_IN and compiled.multiplies_bf16():
        asked = "bf16"
    return check_precision(asked, device, chosen["model"], backend)


_WIDE = 128


def rate(model: str, layers: int, hidden: int) -> float:
    """A peak learning rate by size, a rule and not a search: 8e-3 for 64 units, less in proportion to the square root
    of the width and of the depth, and half of it for the plain cell, which has no gates to keep its gradient in bounds.
    All cells of a grid from 1x64 to 3x256 train well by it (benchmarks/RESULTS.md).

    >>> rate("lstm", 1, 64), rate("rnn", 1, 256)
    (0.008, 0.002)
    """
    return round(8e-3 * math.sqrt(64 / max(hidden, 1) / max(layers, 1)) / (2 if model == "rnn" else 1), 5)


def _by_budget(characters: int, device: torch.device, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What suits the time and the size of the text; figures behind it: benchmarks/RESULTS.md."""
    small, values = characters < 500_000, dict[str, Any]()
    if device.type == "cuda":
        values = {"model": "lstm", "layers": 2, "hidden": 512, "dropout": 0.5 if small else 0.3}
        return {**values, "warmup": 50, "lanes": 64, "window": 64, "lr": 3e-3}
    minutes, looking = asked.get("minutes", 10.0), asked["look_back"] > 0
    if minutes <= 0.7 and not looking:
        layers = asked.get("layers", 1)
        values = {"hidden": 256 if layers == 1 else 192, "window": 32, "lr": 5e-3 if layers == 1 else 2.5e-3}
        values["dropout"] = 0.3 if small else 0.0
    else:
        layers = asked.get("layers", 3 if minutes > (3 if looking else 10) and not small else 2)
        values = {"hidden": _width(layers, minutes, small=small, looking=looking), "window": 64, "average": 0.05}
        readings = _readings(characters, {"layers": layers, **values, **asked})
        often = looking and layers > 2 and readings >= _LSTM_READINGS
        cell, wide = asked.get("model", "lstm" if often else "gru"), asked.get("hidden", values["hidden"])
        values |= {"model": cell, "lr": rate(cell, layers, wide)}
        if looking and small and layers > 2 and cell == "lstm":
            values |= {"window": 128, "lanes": 8}  # what it generates has the form of its text more often
        if looking and minutes <= 0.7:
            values["lr"] = round(1.5 * values["lr"], 5)
        values["dropout"] = _dropout(readings * wide / 256, looking=looking)
        if looking and readings * wide / 256 > _MANY_READINGS and cell in BUILT_IN:
            values["weight_dropout"] = 0.2
    values = {"model": "gru", "layers": layers, "warmup": 50, "lanes": 16, **values}
    if layers > 2 and asked.get("hidden", values["hidden"]) > 256:
        return values  # the cosine and one rate for all weights: these know a text by heart too soon otherwise
    symbols = 1.0 if asked.get("embedding") else 8.0  # measured with one-hot input
    rates = {"symbol_rate": symbols, **({"head_rate": 2.0, "look_back_rate": 0.5} if looking else {})}
    return {**values, "hold": 0.5, "lr_final": 0.0, **rates}


def _look_back(characters: int, symbols: int, device: torch.device, pieces: int) -> int:
    """Places, where a text has long pieces to look back in; not on a GPU, where it has not been measured."""
    long = characters >= 50_000 and characters / max(pieces, 1) >= _PLACES
    return _PLACES if long and symbols <= 512 and device.type == "cpu" else 0


_PLACES = 2048


def _grams(characters: int, symbols: int, device: torch.device, chosen: Mapping[str, Any]) -> int:
    """Rows for strings, where the text is long and read too few times to be known by heart (benchmarks/RESULTS.md)."""
    halved = {**chosen, "minutes": chosen["minutes"] / 2} if chosen.get("minutes") else chosen  # `_SPEED` is rarely met
    few = characters >= 200_000 and _readings(characters, halved) <= _FEW_READINGS and not chosen["look_back"]
    return _GRAMS if few and symbols <= 256 and device.type == "cpu" else 0


_GRAMS = 32_768
_FEW_READINGS = 3.5


def _width(layers: int, minutes: float, *, small: bool, looking: bool) -> int:
    """Units a layer: more where there is one layer alone, or much time; other widths won where it looks back."""
    if layers == 1:
        return 256 if small or minutes <= 1.5 else 384
    if minutes <= 3:
        widths = (160, 192, 256) if looking else (160, 160, 192)
        return widths[0 if minutes <= 0.7 else 1 if minutes <= 1.5 else 2]
    if layers > 2:
        return 192 if small else 320 if minutes > 10 else 256
    return 256


def window_shape(characters: int, plan: Plan) -> tuple[int, int]:
    """Steps and lanes of a window of a training part of so many characters, which both are cut to.

    >>> plan = choose(10, torch.device("cpu"), {"max_steps": 1, "lanes": 4, "window": 64})
    >>> window_shape(10, plan)
    (3, 4)
    """
    lanes = min(plan.lanes, characters)
    return min(plan.window, -(-characters // max(lanes, 1))), lanes


def window_bytes(network: RNNConfig, symbols: int, places: int) -> int:
    """About how much memory a training step needs for its activations.

    A step in one lane keeps about 9 numbers a unit of a GRU or LSTM layer and 2 of an RNN layer for backpropagation,
    12 a symbol of the output, and with looking back one a place and 13 a symbol more. Measured at 256 units and 60
    symbols with the fused backend; others need more.

    Args:
        network: its shape.
        symbols: of the vocabulary.
        places: steps times lanes of a window.
    """
    units = (2 if network.model == "rnn" else 9) * network.layers * network.hidden
    looking = network.look_back + 13 * symbols if network.look_back else 0
    return 4 * places * (units + 12 * symbols + looking)


def affordable(plan: Plan, characters: int, symbols: int, device: torch.device) -> Plan:
    """The plan; refuses one whose windows need more memory than is free.

    Args:
        plan: of the training.
        characters: targets of the training part.
        symbols: of the vocabulary.
        device: where training runs; on a GPU nothing is refused.

    Raises:
        OptionError: says how much memory a window needs, and how much is free.
    """
    steps, lanes = window_shape(characters, plan)
    needed, free = window_bytes(plan.network, symbols, steps * lanes), free_memory()
    if device.type == "cpu" and free is not None and needed > free:
        raise OptionError(
            f"a window of {steps:,} steps in {lanes:,} lanes needs about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free: take a smaller --seq-length or --batch-size"
        )
    return plan


def validation_limit(characters: int, plan: Plan) -> int:
    """How many characters a validation reads at most, so that all of them take about a tenth of the training's time.

    Reading without gradients takes about a third of the time that training on the same characters takes. The limit
    depends on the options and the size of the text, and never on the clock; it is 50,000 or more.

    Args:
        characters: targets of the training part.
        plan: of the training.

    >>> plan = choose(10**8, torch.device("cpu"), {"max_steps": 50_000, "lanes": 16, "window": 64})
    >>> validation_limit(10**8, plan)
    768000
    """
    net, opt = plan.network, plan.optimisation
    values = {"layers": net.layers, "hidden": net.hidden, "look_back": net.look_back}
    values |= {"lanes": plan.lanes, "window": plan.window}
    values |= {name: value for name in ("epochs", "max_steps", "minutes") if (value := getattr(opt, name)) is not None}
    learned = _readings(characters, values) * characters
    return max(50_000, int(0.3 * learned / opt.validations))


_SPEED = 9e9
"""Weights times characters that a core trains in a second: 6 to 12e9 where it was measured, which is near enough."""


def _readings(characters: int, values: Mapping[str, Any]) -> float:
    """About how often the training part is read within the budget."""
    found = [values["epochs"]] if "epochs" in values else []
    if "max_steps" in values:
        found.append(values["max_steps"] * values.get("lanes", 16) * values["window"] / max(characters, 1))
    if "minutes" in values:
        cores = min(torch.get_num_threads(), 4)  # more do not help layers as narrow as these
        weights = 3 * (2 * values["layers"] - 1) * values["hidden"] ** 2  # of GRU layers
        weights += 70 * values.get("look_back", 0)  # a place takes as long
        found.append(values["minutes"] * 60 * cores * _SPEED / max(weights * characters, 1))
    return float(min(found))


def _dropout(readings: float, *, looking: bool = False) -> float:
    """The more often a text is read, the more is left out of each reading (by 256 units; wider layers want more).

    A network that looks back has dropout sooner and little of it, as its recurrent weights have dropout, too, later on:
    with more of it, what it generates before there is much to look back on loses the form of its text.

    >>> [_dropout(readings) for readings in (0.2, 9, 12, 20, 100)]
    [0.0, 0.0, 0.1, 0.3, 0.4]
    >>> [_dropout(readings, looking=True) for readings in (0.2, 9, 12, 20, 100)]
    [0.0, 0.1, 0.1, 0.1, 0.1]
    """
    if looking:
        return 0.1 if readings > _FEW_READINGS else 0.0
    return next((dropout for most, dropout in _DROPOUT if readings <= most), 0.0)  # not a number: refused elsewhere


_LSTM_READINGS = 2.0
"""Readings from which three layers of an LSTM are ahead of a GRU's: it learns slower at first, and then further."""
_MANY_READINGS = 10.0
_DROPOUT = ((_MANY_READINGS, 0.0), (13.0, 0.1), (16.0, 0.2), (30.0, 0.3), (math.inf, 0.4))

"""What the examples share: training a model in a few lines, a picture, and the command line of a script."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from charlm.training.interfaces import Objective, Observer, StepReport, ValidationReport
from charlm.training.loop import Loop
from charlm.training.options import Optimisation

OUTPUT = Path(__file__).parent / "output"


class Losses(Observer):
    """Gathers the mean training loss of every epoch."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_validation(self, report: ValidationReport) -> None:
        """The loop validates once an epoch here."""
        if report.train is not None:
            self.epochs.append(report.train)

    def on_step(self, report: StepReport) -> None:
        """Nothing."""


def train(
    objective: Objective, *, epochs: int, lr: float, seed: int = 0, steady: bool = False, weight_decay: float = 0.0
) -> list[float]:
    """Optimises from fresh weights; the mean training loss of each epoch.

    Args:
        objective: model and data.
        epochs: passes over the training examples.
        lr: the learning rate: the peak of warm-up and cosine decay, or `steady` throughout.
        seed: of the initial weights.
        steady: whether the rate stays as it is.
        weight_decay: of the matrices.
    """
    module: Any = objective.module
    module.reset_parameters(torch.Generator().manual_seed(seed))
    shape = {"lr_final": 1.0, "warmup": 0, "betas": (0.9, 0.999)} if steady else {"lr_final": 0.02, "warmup": 20}
    options = Optimisation(
        lr=lr, epochs=epochs, patience=0, validations=epochs, seed=seed, weight_decay=weight_decay, **shape
    )
    watch = Losses()
    Loop(objective, options, observer=watch).run()
    return watch.epochs


def picture(name: str, draw: Callable[[Any], None], *, width: float = 6.4, height: float = 4.0) -> None:
    """Draws into `output/NAME.png`; `draw` gets matplotlib's axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    OUTPUT.mkdir(exist_ok=True)
    figure.savefig(OUTPUT / f"{name}.png")


def script(main: Callable[[bool], str], name: str) -> None:
    """Runs an example: prints its report, and keeps it in `output/NAME.txt` unless it was a small one."""
    parser = argparse.ArgumentParser(description=(main.__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a size of seconds, to see that it runs; nothing is kept")
    small = parser.parse_args().small
    torch.manual_seed(0)
    report = main(small)
    print(report)
    if not small:
        OUTPUT.mkdir(exist_ok=True)
        (OUTPUT / f"{name}.txt").write_text(report + "\n", encoding="utf-8")

"""Who watches a run, and what the loop tells of it."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from charlm.training.options import Progress

__all__ = ["Observer", "StepReport", "Unobserved", "ValidationReport"]


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One step, for a progress bar."""

    progress: Progress
    loss: float
    lr: float
    targets_per_second: float


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """One validation, for a table, a sample and a curve."""

    progress: Progress
    train: float | None
    valid: float
    lr: float
    improved: bool
    seconds: float


class Observer(abc.ABC):
    """Watches a run."""

    @abc.abstractmethod
    def on_step(self, report: StepReport) -> None:
        """After every step."""

    @abc.abstractmethod
    def on_validation(self, report: ValidationReport) -> None:
        """After every validation."""

    @abc.abstractmethod
    def on_note(self, message: str) -> None:
        """Something a person should know, in one sentence."""


class Unobserved(Observer):
    """Nobody watches."""

    def on_step(self, report: StepReport) -> None:
        """Says nothing."""

    def on_validation(self, report: ValidationReport) -> None:
        """Says nothing."""

    def on_note(self, message: str) -> None:
        """Says nothing."""

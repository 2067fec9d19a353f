"""Which of several processes this is that torchrun started: the first one speaks for all. Imports nothing heavy."""

from __future__ import annotations

import os

__all__ = ["follower", "several"]


def several() -> bool:
    """Whether torchrun started several processes, of which this is one."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def follower() -> bool:
    """Whether this is one of them, but not the first: what all of them find, the first one says."""
    return several() and os.environ.get("RANK", "0") != "0"

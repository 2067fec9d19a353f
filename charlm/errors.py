"""Errors that a user can correct. Each message says what was expected, what was given, and what to do about it."""

import operator
from typing import Any


class CharlmError(Exception):
    """Wrong use or bad input, in one clear sentence. The command line prints it and exits with 2."""


class OptionError(CharlmError, ValueError):
    """An option or argument whose value is wrong, or that does not go with another one."""


class TextError(CharlmError, ValueError):
    """A text that cannot be read, or is too short for what was asked of it."""


class UnknownCharacterError(TextError):
    """A character that a vocabulary does not hold.

    >>> error = UnknownCharacterError("é", 3, 65)
    >>> print(error)
    character 'é' (U+00E9) at position 3 is not among the 65 characters of this vocabulary: leave it out,
    or use a model made from a text that has it
    """

    def __init__(self, character: str, position: int, size: int) -> None:
        self.character, self.position = character, position
        super().__init__(
            f"character {character!r} (U+{ord(character):04X}) at position {position} is not among the {size} "
            "characters of this vocabulary: leave it out, or use a model made from a text that has it"
        )


def check_seed(seed: Any) -> int:
    """A seed as every source of chance takes it, or an OptionError.

    >>> check_seed(-1)
    Traceback (most recent call last):
    charlm.errors.OptionError: a seed is a whole number from 0 to 2**63 - 1, not -1
    """
    if not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < 2**63:
        raise OptionError(f"a seed is a whole number from 0 to 2**63 - 1, not {seed!r}")
    return operator.index(seed)


class StorageError(CharlmError, OSError):
    """A file that could not be written. This is not wrong use, so the command line exits with 1.

    >>> error = StorageError("run/config.json cannot be written", OSError(28, "No space left on device"))
    >>> print(error, error.errno)
    run/config.json cannot be written 28
    """

    def __init__(self, message: str, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause))
        self.message, self.cause = message, cause

    def __reduce__(self) -> tuple[Any, ...]:
        return StorageError, (self.message, self.cause)

    def __str__(self) -> str:
        return self.message


class CheckpointError(CharlmError):
    """A model directory that is missing, damaged, of another kind, or written by a newer version."""


class LostProcessError(CharlmError):
    """Another process of the same training has ended. This is not wrong use, so the command line exits with 1."""

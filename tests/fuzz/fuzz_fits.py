"""Changed directories of sequence models: predicted from and gone on with."""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest import mock

from tests.fuzz.common import Tally, change_files, restore
from tests.fuzz.fuzz_commands import run_command
from tests.fuzz.fuzz_tables import TABLES

__all__ = ["fuzz_fits"]

FITS = {"score.csv": "score", "vectors.tsv": "distribution"}
"""The tables that a model is made from: of text, and of numbers with a scale."""


def fuzz_fits(number: int, seed: int, scratch: Path, tally: Tally) -> None:
    """So many changed directories of fits; each is asked to predict, or to go on for a step."""
    home, before = scratch / "fits", Path.cwd()
    home.mkdir()
    os.chdir(home)
    try:
        with (
            mock.patch("charlm.sequences.fit.drawn", return_value=None),
            mock.patch.object(os, "fsync", return_value=None),
        ):
            _fuzz(number, seed, tally)
    finally:
        os.chdir(before)


def _fuzz(number: int, seed: int, tally: Tally) -> None:
    kept = {}
    for table, mode in FITS.items():
        fit = Path(table).with_suffix("")
        Path(table).write_bytes(TABLES[table])
        quick = ("--max-steps", "2", "--hidden", "2", "--backend", "reference", "--out", str(fit))
        run_command(["fit", table, "--mode", mode, *quick])
        kept[fit] = {path.name: path.read_bytes() for path in fit.iterdir()}
    for case in range(number):
        chance = random.Random(f"fit/{seed}/{case}")
        table = chance.choice(sorted(FITS))
        fit = Path(table).with_suffix("")
        about = change_files(fit, chance)
        kind, arguments = chance.choice(
            (
                ("prediction", ["predict", str(fit), table, "--json"]),
                ("fit", ["fit", "--resume", str(fit), "--max-steps", "3"]),
            )
        )
        tally.case(kind, lambda arguments=arguments: run_command(arguments), f"case {case}: {about}")  # type: ignore[misc]
        restore(fit, kept[fit])

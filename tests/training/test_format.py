"""Checkpoints of released formats stay readable: what was written then gives the numbers that it gave then."""

import json
from pathlib import Path

import pytest
import torch

from charlm.checkpoint import load
from charlm.ngrams.model import NGramLM
from charlm.text.text import read_text
from charlm.training.language_run import LANGUAGE, resume_language
from charlm.training.states import read_saved

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize(
    "directory", sorted(FIXTURES.glob("format-*/[!f]*/")), ids=lambda d: f"{d.parent.name}-{d.name}"
)
def test_a_checkpoint_of_an_earlier_format_gives_its_numbers(directory: Path) -> None:
    expected = json.loads((directory.parent / "expected.json").read_text())[directory.name]
    checkpoint = load(directory)
    model = checkpoint
    ids = torch.tensor(model.vocab.encode(expected["text"]).tolist())[:, None]
    with torch.no_grad():
        logp, _ = model.target_logprobs(ids[:-1], ids[1:], model.initial_state(1))
    # Kneser-Ney once took continuation counts at the start of a text; now it is the model of the shorter order there
    first = model.order if isinstance(model, NGramLM) and model.smoothing == "kneser-ney" else 0
    wanted = torch.tensor(expected["logp"]).double()
    torch.testing.assert_close(logp[first:, 0].double(), wanted[first:], atol=1e-5, rtol=0)
    assert checkpoint.kind == expected["kind"]


def test_a_run_of_an_earlier_format_goes_on(tmp_path: Path) -> None:
    import shutil

    for fixture in sorted(FIXTURES.glob("format-*")):
        directory = Path(shutil.copytree(fixture / "rnn", tmp_path / fixture.name))
        saved = read_saved(directory, LANGUAGE)
        text = read_text(fixture / "text.txt", vocab=saved.vocab)
        assert resume_language(directory, text, torch.device("cpu")).train() == "finished"
        rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        expected = json.loads((fixture / "expected.json").read_text())["run"]
        assert [row["valid_nats"] for row in rows] == pytest.approx(expected["valid_nats"], abs=1e-4)

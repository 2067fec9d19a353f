"""The examples run, at a size of seconds, and what they keep says what the README says."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("noise", "palindromes", "languages", "logs", "sine", "reversing")
LISTS = ("items", "molecules", "reading_times")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, *LISTS, "domains", "names"])
def test_a_small_size_runs(name: str) -> None:
    torch.manual_seed(0)
    report = importlib.import_module(f"examples.{name}").main(True)
    assert re.search(r"\d", report)


@pytest.mark.parametrize("name", NAMES)
def test_output_and_picture_are_kept_and_named(name: str) -> None:
    assert (EXAMPLES / "output" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (EXAMPLES / "output" / f"{name}.txt").read_text(encoding="utf-8").strip()
    assert f"python -m examples.{name}" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LISTS)
def test_the_table_of_a_list_stands_in_its_docstring_as_it_was_printed(name: str) -> None:
    kept = (EXAMPLES / "output" / f"{name}.txt").read_text(encoding="utf-8").strip()
    module = importlib.import_module(f"examples.{name}")
    said = {line.strip() for line in (module.__doc__ or "").splitlines()}
    assert {line.strip() for line in kept.splitlines()} <= said
    assert f"python -m examples.{name}" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_molecules_of_the_grammar_are_valid() -> None:
    from examples.molecules import molecules, valid, well_formed

    made = molecules(300)
    assert len(set(made)) == 300
    assert all(map(well_formed, made))
    assert [well_formed(each) for each in ("C(C", "C)C(", "c1ccccc", "C1CC1C2CC2")] == [False, False, False, True]
    if (share := valid(made)) is None:
        pytest.skip("rdkit is not installed")
    assert share == 1
    assert valid(["C(C)(C)(C)(C)C"]) == 0  # five bonds


def test_a_regression_finds_the_effect_that_reading_times_were_made_with() -> None:
    """Against scikit-learn's coefficients, and a log-likelihood by the normal density."""
    from sklearn.linear_model import LinearRegression

    from examples.reading_times import regression, simulated

    chance = np.random.default_rng(1)
    columns = [chance.integers(1, 12, 4000).astype(float), chance.random(4000) * 4, chance.gamma(3, 4, 4000)]
    times = simulated(*columns)
    likelihood, effect, error = regression(times, *columns)
    fitted = LinearRegression().fit(np.stack(columns, 1), times)
    rest = times - fitted.predict(np.stack(columns, 1))
    assert effect == pytest.approx(fitted.coef_[-1])
    assert abs(effect - 4) < 3 * error < 1
    deviation = rest.std()
    density = -((rest / deviation) ** 2) / 2 - np.log(deviation * np.sqrt(2 * np.pi))
    assert likelihood == pytest.approx(density.sum())


def test_noise_is_memorised_and_not_understood() -> None:
    """The bounds of the textbook's claim, on the kept output."""
    kept = (EXAMPLES / "output" / "noise.txt").read_text(encoding="utf-8")
    losses = {int(epoch): float(loss) for epoch, loss in re.findall(r"epoch +(\d+): training loss ([\d.]+)", kept)}
    assert losses[20] < 0.15
    assert losses[40] < 0.02
    (others,) = re.findall(r"other sequences: +([\d.]+)%", kept)
    assert 46 < float(others) < 54


def test_gated_cells_remember_where_the_simple_one_forgets() -> None:
    kept = (EXAMPLES / "output" / "palindromes.txt").read_text(encoding="utf-8").splitlines()
    lengths = [int(word) for word in kept[1].split()[1:] if word.isdecimal()]
    right = {line.split()[0]: [float(word.rstrip("%")) for word in line.split()[1:-1]] for line in kept[2:5]}
    at = lengths.index(20)
    assert right["gru"][at] >= 99
    assert right["lstm"][at] >= 99
    assert right["rnn"][0] - right["rnn"][-1] > 20


def test_what_the_palindromes_are_asked_is_in_what_they_show() -> None:
    from examples.palindromes import palindromes

    made = palindromes(np.array([5, 8, 13]), 0)
    for seen, last in zip(made.inputs, made.targets, strict=True):
        whole = [*seen.tolist(), *last.tolist()]
        assert whole == whole[::-1]


def test_a_network_learns_more_of_reversing_than_chance() -> None:
    """The machinery of the examples learns at all: the loss of the last epoch is far below that of the first."""
    from charlm.text.vocab import Vocab
    from examples.reversing import LETTERS, words
    from examples.tools import train
    from examples.translator import TranslationConfig, TranslationObjective, Translator

    known, vocab = words(400, 3, 0), Vocab.of(LETTERS)
    model = Translator(vocab, vocab, TranslationConfig(cell="gru", hidden=32))
    data = model.examples(known, [word[::-1] for word in known])
    losses = train(TranslationObjective(model, data, batch=32), epochs=12, lr=0.01)
    assert losses[-1] < losses[0] / 3

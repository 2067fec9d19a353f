"""Encoder and decoder: padding changes nothing, what is written is the most probable, it learns to reverse."""

import numpy as np
import pytest
import torch

from charlm.errors import CharlmError, OptionError, TextError
from charlm.lm.interface import SamplingRule
from charlm.text.vocab import Vocab
from charlm.training.loop import Loop
from charlm.training.options import Optimisation
from examples.translator import END, START, TranslationConfig, TranslationObjective, Translator

ABC = Vocab.of("abc")
PAIRS = (["ab", "c", "abcabc", "bca?"], ["bba", "c", "a", "cabb"])


def translator(cell: str = "gru", **options: object) -> Translator:
    made = Translator(ABC, ABC, TranslationConfig(cell=cell, hidden=6, layers=2, **options))  # type: ignore[arg-type]
    return made.double()


@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_padded_batch_is_the_pairs_one_by_one(cell: str, embedding: int) -> None:
    """The loss over all targets and its gradients, to 1e-12."""
    made = translator(cell, embedding=embedding)
    objective = TranslationObjective(made, made.examples(*PAIRS))
    mean, count = objective.loss(0)
    assert count == sum(len(target) + 1 for target in PAIRS[1])
    total = torch.zeros(()).double()
    for source, target in zip(*PAIRS, strict=True):
        ids = torch.tensor(ABC.encode(source, unknown=True).astype(np.int64)).unsqueeze(-1)
        state = made.encode(ids)
        before = made.start
        for character in target + END:
            row, state = made.decoder(torch.tensor([[before]]), state)
            before = made.decoder.vocab.characters.index(character)
            total = total - row[0, 0, before]
    assert (mean * count - total).abs() <= 1e-12 * count
    ours = torch.autograd.grad(mean * count, list(made.parameters()))
    theirs = torch.autograd.grad(total, list(made.parameters()))
    assert all((a - b).abs().max() <= 1e-12 for a, b in zip(ours, theirs, strict=True))


def test_what_is_written_is_the_most_probable_symbol_each_time() -> None:
    torch.manual_seed(4)
    made = translator("lstm")
    for parameter in made.parameters():
        parameter.data.normal_()
    texts = ["abc", "c", "bb", "aabbccab"]
    found = made.translate(texts, most=40, batch=2)
    for text, written in zip(texts, found, strict=True):
        state = made.encode(torch.tensor(ABC.encode(text).astype(np.int64)).unsqueeze(-1))
        ids = [made.start]
        while len(ids) <= 40 and ids[-1] != made.end:
            row, state = made.decoder(torch.tensor([[ids[-1]]]), state)
            ids.append(int(row[0, 0].argmax()))
        expected = [made.decoder.vocab.characters[id] for id in ids[1:] if id not in (made.start, made.end)]
        assert written == "".join(expected)


def test_chance_is_a_texts_own() -> None:
    made = translator()
    rule = SamplingRule(temperature=1.0)
    together = made.translate(["abc", "bb", "abcc"], rule=rule, seed=3, most=70)
    assert together == made.translate(["abc", "bb", "abcc"], rule=rule, seed=3, most=70, batch=1)
    assert together != made.translate(["abc", "bb", "abcc"], rule=rule, seed=4, most=70)
    assert made.translate(["abc"], rule=rule, seed=3, most=70) == together[:1]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TextError, match=r"U\+0003"):
        Translator(ABC, Vocab.of("a" + END), TranslationConfig(hidden=3))
    with pytest.raises(TextError, match=r"U\+0002"):
        Translator(ABC, Vocab.of("a" + START), TranslationConfig(hidden=3))
    with pytest.raises(CharlmError, match="'d'"):
        translator().examples(["a"], ["d"])
    with pytest.raises(OptionError, match="most"):
        translator().translate(["a"], most=0)
    with pytest.raises(OptionError, match="hidden"):
        TranslationConfig(hidden=0)


@pytest.mark.slow
def test_it_learns_to_reverse() -> None:
    chance = np.random.default_rng(0)
    words = ["".join(chance.choice(list("abc"), size=1 + n % 5)) for n in range(1600)]
    made = Translator(ABC, ABC, TranslationConfig(cell="gru", hidden=48))
    made.reset_parameters(torch.Generator().manual_seed(0))
    made.encoder.backend = made.decoder.stack.backend = "torch"
    objective = TranslationObjective(made, made.examples(words, [word[::-1] for word in words]), batch=64)
    Loop(objective, Optimisation(lr=0.01, epochs=12.0, warmup=10, validations=2)).run()
    made.eval()
    fresh = ["".join(chance.choice(list("abc"), size=1 + n % 5)) for n in range(100)]
    found = made.translate(fresh)
    assert sum(a == b[::-1] for a, b in zip(found, fresh, strict=True)) >= 95

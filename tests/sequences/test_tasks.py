"""Objectives: every example once an epoch, losses of real targets alone, and probabilities that can be believed."""

import numpy as np
import pytest
import torch

from charlm.errors import OptionError
from charlm.sequences import Examples, Sequences
from charlm.sequences.config import SequenceConfig, fit_scales
from charlm.sequences.model import SequenceModel
from charlm.sequences.tasks import Batches, ForesightObjective, SequenceObjective, pretrained
from charlm.text.vocab import Vocab
from charlm.training.loop import Loop
from charlm.training.options import Optimisation


def test_every_example_once_an_epoch_in_an_order_of_its_own() -> None:
    lengths = torch.randint(1, 30, (103,))
    batches = Batches(lengths, batch=10, seed=1)
    assert batches.per_epoch == 11
    epochs = [[batches.at(epoch * 11 + number).tolist() for number in range(11)] for epoch in (0, 1, 2)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(103))
        assert [len(batch) for batch in epoch] == [10] * 10 + [3]
    assert epochs[0] != epochs[1] != epochs[2]
    again = Batches(lengths, batch=10, seed=1)  # a function of the position alone
    assert [again.at(position).tolist() for position in (25, 3, 14)] == [epochs[2][3], epochs[0][3], epochs[1][3]]
    assert Batches(lengths, batch=10, seed=2).at(0).tolist() != epochs[0][0]


def test_batches_have_like_lengths() -> None:
    lengths = torch.randint(1, 100, (1000,))
    steps = {}
    for pool in (1, 16):
        batches = Batches(lengths, batch=10, seed=0, pool=pool)
        steps[pool] = sum(10 * int(lengths[batches.at(n)].max()) for n in range(batches.per_epoch))
    assert int(lengths.sum()) <= steps[16] < 1.2 * int(lengths.sum()) < steps[1]


def objective_of(output: str, mode: str, targets: Sequences, inputs: Sequences, **options: object) -> SequenceObjective:
    shape = {"cell": "gru", "hidden": 5, "features": 2, "classes": 3, "output": output, "mode": mode, **options}
    model = SequenceModel(SequenceConfig(**shape)).double()  # type: ignore[arg-type]
    return SequenceObjective(model, Examples(inputs=inputs, targets=targets), batch=99)


LENGTHS = (3, 1, 5, 2)
INPUTS = Sequences.of_numbers([np.random.default_rng(n).normal(size=(n, 2)) for n in LENGTHS])


@pytest.mark.parametrize("output", ["last", "every"])
@pytest.mark.parametrize("kind", ["numbers", "labels", "rows"])
def test_the_loss_is_the_mean_over_real_targets(output: str, kind: str) -> None:
    chance = np.random.default_rng(7)
    counts = [1] * 4 if output == "last" else LENGTHS
    made = {
        "numbers": lambda: Sequences.of_numbers([chance.random(n) for n in counts]),
        "labels": lambda: Sequences.of_labels([chance.integers(0, 3, n) for n in counts]),
        "rows": lambda: Sequences.of_numbers([chance.dirichlet(np.ones(3), n) for n in counts]),
    }[kind]()
    objective = objective_of(output, "score" if kind == "numbers" else "distribution", made, INPUTS)
    losses = []
    for x, targets in zip(INPUTS, made, strict=True):
        y, _ = objective.model(x.unsqueeze(1))
        for p, target in zip(y.reshape(len(targets), -1), targets, strict=True):
            if kind == "numbers":
                losses.append(-(target * p.log() + (1 - target) * (1 - p).log()).sum())
            elif kind == "labels":
                losses.append(-p[target])
            else:
                losses.append((target * (target.log() - p)).sum())
    loss, count = objective.loss(0)
    assert count == sum(counts) == len(losses)
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-13)
    assert objective.validate() == pytest.approx(loss.item(), abs=1e-13)
    alone = torch.autograd.grad(torch.stack(losses).mean(), list(objective.model.parameters()))
    for ours, theirs in zip(torch.autograd.grad(loss, list(objective.model.parameters())), alone, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12


def test_one_to_many_is_learned_step_by_step() -> None:
    targets = Sequences.of_labels([[0, 1, 2, 0], [2, 2], [1]])
    inputs = Sequences.of_rows(np.eye(3)[:, :2])
    objective = objective_of("every", "distribution", targets, inputs)
    expected = []
    for x, labels in zip(inputs, targets, strict=True):
        logp, _ = objective.model(x.unsqueeze(1), steps=len(labels))
        expected += [-row[0, label] for row, label in zip(logp, labels, strict=True)]
    loss, count = objective.loss(0)
    assert count == 7
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), abs=1e-13)


@pytest.mark.parametrize(
    ("mode", "output", "targets", "message"),
    [
        ("score", "last", Sequences.of_numbers([0.5, 1.5, 0.0, 1.0]), "example 2 has the target 1.5"),
        ("score", "last", Sequences.of_numbers([[0.5], [0.5, 0.5], [1.0], [1.0]]), "example 2 has more than one"),
        ("score", "last", Sequences.of_labels([0, 1, 0, 1]), "one number"),
        ("score", "last", Sequences.of_numbers([0.5, 1.0]), "are 4 sequences and targets for 2"),
        ("score", "last", Sequences.of_rows(np.ones((4, 2))), "one number"),
        ("distribution", "last", Sequences.of_labels([0, 1, 3, 1]), "example 3 has no label from 0 to 2"),
        ("distribution", "last", Sequences.of_labels([0, -1, 2, 1]), "example 2 has no label"),
        ("distribution", "last", Sequences.of_rows(np.ones((4, 3)) / 2), "example 1 has no row of prob"),
        ("distribution", "last", Sequences.of_rows(np.ones((4, 2)) / 2), "3 numbers"),
        ("distribution", "every", Sequences.of_labels([0, 1, 2, 1]), "example 1 has another number"),
    ],
)
def test_targets_that_cannot_be_are_refused(mode: str, output: str, targets: Sequences, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        objective_of(output, mode, targets, INPUTS)


def test_inputs_that_the_model_does_not_read_are_refused() -> None:
    labels = Sequences.of_labels([0, 1, 2, 1])
    with pytest.raises(OptionError, match="2 numbers a step, the model reads 3"):
        objective_of("last", "distribution", labels, INPUTS, features=3)
    with pytest.raises(OptionError, match="characters, the model reads 2 numbers"):
        objective_of("last", "distribution", labels, labels)
    text = SequenceModel(mode="distribution", hidden=3, classes=3, vocab=Vocab.of("ab"))
    with pytest.raises(OptionError, match="numbers a step, the model reads characters"):
        SequenceObjective(text, Examples(inputs=INPUTS, targets=labels))


def test_dropout_is_carried_and_taken_back() -> None:
    targets = Sequences.of_numbers([0.0, 1.0, 0.5, 0.25])
    objective = objective_of("last", "score", targets, INPUTS, dropout=0.5)
    objective.module.train()
    objective.loss(0)
    carried = {name: tensor.clone() for name, tensor in objective.carried().items()}
    first = objective.loss(1)[0].item()
    assert objective.loss(1)[0].item() != first
    objective.restore(carried)
    assert objective.loss(1)[0].item() == first


def test_text_of_different_lengths_is_learned() -> None:
    """Which of two letters came first: nothing but the order tells."""
    chance = np.random.default_rng(0)
    texts = ["".join(chance.choice(list("ab"), size=2 + n % 4)) for n in range(300)]
    vocab = Vocab.of("ab")
    labels = Sequences.of_labels([int(text[0] == "a") for text in texts])
    model = SequenceModel(cell="gru", mode="distribution", hidden=12, vocab=vocab)
    model.reset_parameters(torch.Generator().manual_seed(0))
    model.stack.backend = "torch"
    whole = Examples(inputs=Sequences.of_texts(texts, vocab), targets=labels)
    objective = SequenceObjective(model, whole.take(torch.arange(200)), whole.take(torch.arange(200, 300)), batch=32)
    Loop(objective, Optimisation(lr=0.03, epochs=10.0, warmup=5, validations=2)).run()
    p = model.predict(objective.valid.inputs).values
    assert (p.argmax(-1) == objective.valid.targets.values).double().mean() >= 0.98


def calibration_error(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Σ over bins of their share × |mean of what came − mean of what was said| (Naeini et al. 2015)."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum(abs(y[place == n].sum() - p[place == n].sum()) for n in range(bins)) / len(p))


@pytest.mark.slow
def test_scores_are_as_good_as_the_true_probabilities() -> None:
    """Data drawn from known probabilities: what is fitted is calibrated, and hardly worse than the truth."""
    chance = np.random.default_rng(0)
    x = chance.normal(size=(22_000, 6))
    truth = 1 / (1 + np.exp(-(1.5 * x[:, 0] - x[:, 3] * x[:, 5] + np.abs(x).mean(1) - 0.5)))
    y = (chance.random(22_000) < truth).astype(float)
    whole = Examples(inputs=Sequences.of_numbers(x), targets=Sequences.of_numbers(y))
    train, valid, test = (whole.take(rows) for rows in torch.split(torch.arange(22_000), [10_000, 2_000, 10_000]))
    model = SequenceModel(fit_scales(SequenceConfig(cell="gru", hidden=32, layers=1), train, inputs="z-score"))
    model.reset_parameters(torch.Generator().manual_seed(0))
    model.stack.backend = "torch"
    objective = SequenceObjective(model, train, valid, batch=128)
    Loop(objective, Optimisation(lr=0.01, epochs=12.0, warmup=20, validations=4, average=0.3)).run()
    p = model.predict(test.inputs).values.numpy().reshape(-1)
    y, truth = y[12_000:], truth[12_000:]
    brier, least = ((p - y) ** 2).mean(), ((truth - y) ** 2).mean()
    assert calibration_error(p, y) < 0.03
    assert brier < 1.05 * least
    assert ((y.mean() - y) ** 2).mean() > 1.2 * least  # there was something to learn


def test_foresight_is_the_loss_of_next_and_previous_characters() -> None:
    """By hand over each text alone; what is to come changes no prediction."""
    vocab = Vocab.of("abcd")
    texts = Sequences.of_texts(["abca", "d", "ba?dc"], vocab)
    examples = Examples(inputs=texts, targets=Sequences.of_labels([0, 1, 0]))
    model = SequenceModel(cell="gru", hidden=3, mode="distribution", bidirectional=True, vocab=vocab)
    objective = ForesightObjective(model, examples, None, batch=3)
    found = objective.losses(examples, torch.arange(3))
    forward, backward = objective.heads
    expected = []
    for ids in texts:
        y, _ = model.stack(ids[:, None])
        for t in range(len(ids) - 1):
            for head, half, came in ((forward, y[t, 0, :3], ids[t + 1]), (backward, y[t + 1, 0, 3:], ids[t])):
                if came >= 0:
                    expected.append(-head(half)[came].item())
    assert sorted(found.tolist()) == pytest.approx(sorted(expected), abs=1e-6)
    with pytest.raises(OptionError, match="one layer"):
        ForesightObjective(SequenceModel(layers=2, bidirectional=True, vocab=vocab), examples, None)
    options = Optimisation(epochs=30.0, lr=0.03)
    before = found.mean().item()
    made = pretrained(model.config, vocab, examples, None, options, batch=3, device=torch.device("cpu"))
    after = ForesightObjective(made, examples, None, batch=3)
    assert {name for name, _ in made.named_parameters()} == {name for name, _ in model.named_parameters()}
    assert before > 1
    assert after.losses(examples, torch.arange(3)).mean().item() > 0

"""Sequence models: padding changes nothing, torch's own layers agree, every kind of task, what is refused."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from charlm.codec import decode, encode
from charlm.errors import CharlmError, OptionError
from charlm.nn.stack import to_torch
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.sequences import Examples, Sequences
from charlm.sequences.config import Scale, SequenceConfig
from charlm.sequences.model import SequenceModel
from charlm.text.vocab import Vocab

VOCAB = Vocab.of("abcd")
LENGTHS = torch.tensor([4, 1, 6, 2])
CASES = list(itertools.product(["rnn", "gru", "lstm"], [False, True], [1, 2], ["reference", "fused", "torch"]))


def model(cell: str, bidirectional: bool, layers: int, backend: str, **more: object) -> SequenceModel:
    made = SequenceModel(cell=cell, bidirectional=bidirectional, layers=layers, hidden=5, **more).double()  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.uniform_(parameter, -0.7, 0.7)
    made.stack.backend = backend
    return made


def weighted(y: Tensor, weights: Tensor) -> Tensor:
    return (y * weights.view(*y.shape)).sum()


@pytest.mark.parametrize(("cell", "bidirectional", "layers", "backend"), CASES)
@pytest.mark.parametrize(
    ("output", "mode"),
    [
        ("last", "distribution"),
        ("every", "score"),
        pytest.param("last", "score", marks=pytest.mark.slow),
        pytest.param("every", "distribution", marks=pytest.mark.slow),
    ],
)
def test_a_padded_batch_is_the_sequences_one_by_one(
    cell: str, bidirectional: bool, layers: int, backend: str, output: str, mode: str
) -> None:
    """Outputs, and gradients of all weights and of the input, to 1e-12; what stands in the padding plays no part."""
    scale = Scale(kind="z-score", shift=(0.5, -1.0), width=(2.0, 3.0))
    made = model(
        cell, bidirectional, layers, backend, output=output, mode=mode, classes=3, features=2, input_scale=scale
    )
    x = torch.randn(6, 4, 2).double()
    x[torch.arange(6).unsqueeze(-1) >= LENGTHS] = float("nan")
    x.requires_grad_()
    width = 3 if mode == "distribution" else 1
    weights = torch.randn(6, 4, width).double()
    y, state = made(x, LENGTHS)
    total_padded, total_alone = torch.zeros(()).double(), torch.zeros(()).double()
    alone_inputs = []
    for lane, length in enumerate(LENGTHS.tolist()):
        alone_x = x[:length, lane : lane + 1].detach().requires_grad_()
        alone_inputs.append(alone_x)
        alone, alone_state = made(alone_x)
        ours = y[lane : lane + 1] if output == "last" else y[:length, lane : lane + 1]
        assert (ours - alone).abs().max() <= 1e-12
        for name, tensor in alone_state.items():
            assert (state[name][lane] - tensor[0]).abs().max() <= 1e-12
        here = weights[:1, lane] if output == "last" else weights[:length, lane]
        total_padded, total_alone = total_padded + weighted(ours, here), total_alone + weighted(alone, here)
    if output == "every":
        assert not y[torch.arange(6).unsqueeze(-1) >= LENGTHS].any()
    padded = torch.autograd.grad(total_padded, [*made.parameters(), x])
    single = torch.autograd.grad(total_alone, [*made.parameters(), *alone_inputs])
    for ours, theirs in zip(padded[:-1], single, strict=False):
        assert (ours - theirs).abs().max() <= 1e-12
    for lane, length in enumerate(LENGTHS.tolist()):
        assert (padded[-1][:length, lane] - single[len(padded) - 1 + lane][:, 0]).abs().max() <= 1e-12
        assert not padded[-1][length:, lane].any()


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("embedding", [0, 3])
def test_padded_text_is_the_texts_one_by_one(cell: str, embedding: int) -> None:
    made = model(cell, True, 2, "torch", vocab=VOCAB, embedding=embedding)
    texts = ["abcd", "d", "cabbdad", "da?"]  # ? is unknown: read as the input of zeros
    x, lengths = Sequences.of_texts(texts, VOCAB).padded(torch.arange(4))
    together, _ = made(x, lengths)
    for lane, text in enumerate(texts):
        alone, _ = made(Sequences.of_texts([text], VOCAB).padded(torch.tensor([0]))[0])
        assert (together[lane] - alone[0]).abs().max() <= 1e-12


@pytest.mark.parametrize("proj_size", [0, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_is_torchs_layer_under_a_head(proj_size: int, bias: bool, batch_first: bool) -> None:
    """The arguments of `nn.LSTM` mean what they mean there."""
    made = SequenceModel(
        cell="lstm", mode="distribution", classes=3, layers=2, hidden=5, bidirectional=True, dropout=0, features=4,
        proj_size=proj_size, bias=bias, batch_first=batch_first, output="every",
    ).double()  # fmt: skip
    theirs = to_torch(made.stack)
    assert (theirs.proj_size, theirs.bias) == (proj_size, bias)
    x = torch.randn(4, 6, 4).double()  # batch first
    y, _ = made(x if batch_first else x.transpose(0, 1))
    expected, (h, _) = theirs(x.transpose(0, 1))
    assert torch.allclose(y if batch_first else y.transpose(0, 1), made.head(expected).transpose(0, 1), atol=1e-12)
    last = SequenceModel(SequenceConfig(**{**vars(made.config), "output": "last"})).double()
    last.load_state_dict(made.state_dict())
    packed = pack_padded_sequence(x.transpose(0, 1), LENGTHS, enforce_sorted=False)
    _, (h, _) = theirs(packed)
    y, _ = last(x if batch_first else x.transpose(0, 1), LENGTHS)
    assert torch.allclose(y, made.head(torch.cat([h[-2], h[-1]], -1)), atol=1e-12)


def test_one_to_many_reads_one_step_and_then_nothing() -> None:
    made = model("gru", False, 1, "reference", output="every", features=2)
    x = torch.randn(1, 3, 2).double()
    y, _ = made(x, steps=5)
    by_hand, _ = made(torch.cat([x, torch.zeros(4, 3, 2).double()]))
    assert torch.equal(y, by_hand)
    assert y.shape == (5, 3)
    cut, _ = made(x, torch.tensor([5, 1, 3]), steps=5)
    assert torch.allclose(cut[:3, 2], y[:3, 2], atol=1e-12)
    assert not cut[3:, 2].any()
    text = model("gru", False, 1, "reference", output="every", vocab=VOCAB)
    y, _ = text(torch.tensor([[2]]), steps=3)
    by_hand, _ = text(torch.tensor([[2], [-1], [-1]]))
    assert torch.equal(y, by_hand)
    with pytest.raises(OptionError, match="input of one step"):
        made(x.expand(2, 3, 2), steps=4)


def test_one_step_and_the_state_carried_from_call_to_call() -> None:
    made = model("lstm", False, 2, "reference", output="every", features=1)
    x = torch.randn(6, 4).double()
    whole, after = made(x)
    first, state = made(x[:1])
    assert first.shape == (1, 4)
    rest, state = made(x[1:], state=state)
    assert torch.allclose(torch.cat([first, rest]), whole, atol=1e-14)
    assert all(torch.allclose(state[name], after[name], atol=1e-14) for name in after)


def test_predictions_stand_in_the_order_of_their_inputs_and_in_the_users_units() -> None:
    torch.manual_seed(2)
    rows = [torch.randn(1 + n * 7 % 5, 2).double().numpy() for n in range(9)]
    scale = Scale(kind="min-max", shift=(100.0,), width=(50.0,))
    for output in ("last", "every"):
        made = model("gru", True, 1, "torch", features=2, output=output, target_scale=scale)
        made.train()
        found = made.predict(Sequences.of_numbers(rows), batch=4)
        assert made.training
        for row, y in zip(rows, found, strict=True):
            alone, _ = made(torch.from_numpy(row).unsqueeze(1))
            assert torch.allclose(y.reshape(-1), 100 + 50 * alone.reshape(-1), atol=1e-9)
    distribution = model("gru", False, 1, "torch", features=2, mode="distribution", classes=4)
    p = distribution.predict(Sequences.of_numbers(rows)).values
    assert p.shape == (9, 4)
    assert torch.allclose(p.sum(-1), torch.ones(9).double())


def test_large_numbers_keep_their_digits_until_they_are_scaled() -> None:
    seconds = [1.7e9 + n for n in range(8)]  # neighbours that float32 cannot tell apart
    scale = Scale.fit(torch.tensor(seconds).double().unsqueeze(-1), "min-max")
    made = SequenceModel(cell="rnn", hidden=4, input_scale=scale)
    found = made.predict(Sequences.of_numbers([[value] for value in seconds])).values
    assert len(set(found.flatten().tolist())) == 8


def test_losses_are_of_real_targets_and_of_scaled_ones() -> None:
    scaled = SequenceModel(hidden=3, target_scale=Scale(kind="min-max", shift=(10.0,), width=(20.0,)), loss="squared")
    raw = torch.tensor([0.0])
    assert scaled.losses(raw, torch.tensor([25.0])).item() == pytest.approx((0.5 - 0.75) ** 2)
    entropy = SequenceModel(SequenceConfig(**{**vars(scaled.config), "loss": "cross-entropy"}))
    assert entropy.losses(raw, torch.tensor([99.0])).item() == pytest.approx(np.log(2))  # beyond what was fitted: 1


def test_dropout_draws_from_the_generator_and_only_in_training() -> None:
    made = SequenceModel(cell="gru", layers=2, hidden=8, features=2, dropout=0.5)
    x = torch.randn(5, 3, 2)
    assert torch.equal(made(x)[0], made(x)[0])
    made.train()
    draws = [made(x, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_language_model_lends_its_layers(cell: str, freeze: bool) -> None:
    shape = RNNConfig(model=cell, hidden=6, layers=2, embedding=3, projection=4 if cell == "lstm" else 0)
    lm = CharRNN(VOCAB, shape)
    made = SequenceModel.from_language_model(lm, mode="distribution", classes=3, freeze=freeze)
    ids = torch.tensor([[0, 1], [2, 3], [1, 1]])
    state = lm.initial_state(2)
    table = lm.embedding.weight if lm.embedding is not None else None
    y, _ = lm.stack(ids, state, table=table)
    features, _ = made.features(ids)
    assert torch.allclose(features, y[-1], atol=1e-6)
    trained = {name.split(".")[0] for name, p in made.named_parameters() if p.requires_grad}
    assert trained == ({"head"} if freeze else {"head", "stack", "embedding"})
    made.losses(made.raw(ids)[0], torch.tensor([0, 2])).sum().backward()
    for parameter in made.stack.parameters():
        parameter.data.add_(1.0)
    assert not any(torch.equal(a, b) for a, b in zip(lm.parameters(), made.stack.parameters(), strict=False))
    assert all(p.grad is None for p in lm.parameters())
    with pytest.raises(OptionError, match="hidden"):
        SequenceModel.from_language_model(lm, hidden=9)


def test_a_shape_comes_back_from_json() -> None:
    scale = Scale(kind="min-max", shift=(1.0,), width=(2.0,))
    config = SequenceConfig(cell="gru", layers=3, dropout=0.25, input_scale=scale, target_scale=scale)
    assert decode(SequenceConfig, encode(config)) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "transformer"}, "unknown cell"),
        ({"mode": "answer"}, "unknown mode"),
        ({"output": "all"}, "unknown output"),
        ({"loss": "hinge"}, "unknown loss"),
        ({"classes": 1}, "classes"),
        ({"hidden": 0}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"features": 0}, "vocabulary"),
        ({"features": 2, "vocab": VOCAB}, "vocabulary"),
        ({"embedding": 3}, "embedding"),
        ({"heads": 8}, "no heads"),
        ({"cell": "gru", "proj_size": 3}, "projection"),
        ({"config": SequenceConfig(), "hidden": 3}, "not both"),
        ({"mode": "distribution", "target_scale": Scale(kind="min-max", shift=(0.0,), width=(1.0,))}, "Score alone"),
        ({"input_scale": Scale(kind="min-max", shift=(0.0, 0.0), width=(1.0, 1.0))}, "2 features"),
    ],
)
def test_shapes_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(CharlmError, match=message):
        SequenceModel(**options)  # type: ignore[arg-type]


def test_inputs_that_do_not_fit_are_refused() -> None:
    made, text = SequenceModel(features=2, hidden=3), SequenceModel(vocab=VOCAB, hidden=3)
    x = torch.zeros(4, 3, 2)
    for wrong in (torch.zeros(4, 3), torch.zeros(4, 3, 1), torch.zeros(4)):
        with pytest.raises(OptionError, match="2 numbers a step"):
            made(wrong)
    with pytest.raises(OptionError, match="whole ids"):
        text(x)
    first = SequenceModel(features=2, hidden=3, batch_first=True)
    with pytest.raises(OptionError, match=r"\[B, T, 2\], not the shape \[3, 4, 1\]"):
        first(torch.zeros(3, 4, 1))
    assert torch.equal(made(x, [4, 2, 1])[0], made(x, torch.tensor([4, 2, 1]))[0])
    with pytest.raises(OptionError, match="hiden"):
        SequenceModel(features=2, hiden=64)
    for lengths in (torch.tensor([4, 0, 1]), torch.tensor([5, 1, 1])):
        with pytest.raises(OptionError, match="from 1 to 4"):
            made(x, lengths)
    for shape in (torch.tensor([4, 4]), torch.tensor([4.0, 4.0, 4.0])):
        with pytest.raises(OptionError, match="one a sequence"):
            made(x, shape)


def test_sequences_are_handed_out_and_taken_apart() -> None:
    rows = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]
    found = Sequences.of_numbers(rows)
    assert [row.flatten().tolist() for row in found] == rows
    assert [row.flatten().tolist() for row in found.take(torch.tensor([2, 0, 2]))] == [rows[2], rows[0], rows[2]]
    x, lengths = found.padded(torch.tensor([0, 2]))
    assert x.squeeze(-1).tolist() == [[1.0, 4.0], [2.0, 5.0], [0.0, 6.0]]
    assert lengths is not None
    assert lengths.tolist() == [2, 3]
    assert found.padded(torch.tensor([1, 1]))[1] is None
    assert Sequences.of_rows([[0.5, 0.5]]).padded(torch.tensor([0]))[0].shape == (1, 1, 2)
    other = Sequences.of_numbers([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # the same numbers, cut elsewhere
    assert other.digest() != found.digest() == Sequences.of_numbers(rows).digest()


def test_wrong_sequences_are_refused_with_their_place() -> None:
    cases = [
        (lambda: Sequences.of_numbers([]), "at least one"),
        (lambda: Sequences.of_texts([], VOCAB), "at least one"),
        (lambda: Sequences.of_texts(["ab", ""], VOCAB), "sequence 2 is empty"),
        (lambda: Sequences.of_numbers([[1.0], []]), "sequence 2 is empty"),
        (lambda: Sequences.of_numbers([[1.0], [float("nan")]]), "sequence 2 holds"),
        (lambda: Sequences.of_numbers([[[1.0, 2.0]], [[1.0]]]), "these differ"),
        (lambda: Sequences.of_rows([1.0]), "a table"),
    ]
    for make, message in cases:
        with pytest.raises(OptionError, match=message):
            make()
    with pytest.raises(OptionError, match="targets for 1"):
        Examples(inputs=Sequences.of_numbers([[1.0], [2.0]]), targets=Sequences.of_labels([0]))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_steps_are_pooled_over_each_sequence_alone(bidirectional: bool) -> None:
    made = model("gru", bidirectional, 1, "torch", mode="distribution", classes=3, features=2,
                 pooling="last+mean+max+attention")  # fmt: skip
    assert made.pooling.attention is not None
    x = torch.randn(6, 4, 2).double()
    y, _ = made(x, LENGTHS)
    steps = model("gru", bidirectional, 1, "torch", mode="distribution", classes=3, features=2, output="every")
    steps.stack.load_state_dict(made.stack.state_dict())
    width = made.stack.outputs
    for lane, length in enumerate(LENGTHS.tolist()):
        outputs, _ = steps.features(x[:length, lane : lane + 1])
        y_TD = outputs[:, 0]
        last = torch.cat([y_TD[-1, :5], y_TD[0, 5:]]) if bidirectional else y_TD[-1]
        weight_T = (y_TD @ made.pooling.attention.weight[0]).softmax(0)
        pooled = torch.cat([last, y_TD.mean(0), y_TD.max(0).values, weight_T @ y_TD])
        assert pooled.shape == (4 * width,)
        assert torch.allclose(y[lane], made.head(pooled), atol=1e-12)


@pytest.mark.parametrize("mode", ["score", "distribution"])
def test_class_weights_count_in_training_and_are_taken_out_of_what_is_said(mode: str) -> None:
    weights = (0.5, 4.0)
    plain = model("gru", False, 1, "torch", mode=mode, features=2)
    weighed = model("gru", False, 1, "torch", mode=mode, features=2, class_weights=weights)
    weighed.load_state_dict(plain.state_dict())
    x, labels = torch.randn(4, 3, 2).double(), torch.tensor([1, 0, 1])
    targets = labels.double() if mode == "score" else labels
    for each in (plain, weighed):
        each.train()
    raw, _ = plain.raw(x)
    assert torch.allclose(weighed.raw(x)[0], raw)
    ratio = weighed.losses(raw, targets) / plain.losses(raw, targets)
    assert ratio.tolist() == pytest.approx([4.0, 0.5, 4.0])
    for each in (plain, weighed):
        each.eval()
    said = [each.raw(x)[0] for each in (plain, weighed)]
    p, q = (torch.sigmoid(raw) if mode == "score" else raw.exp()[:, 1] for raw in said)
    assert torch.allclose(q, (p / 4) / (p / 4 + (1 - p) / 0.5))  # Bayes' rule with the old shares
    assert torch.allclose(weighed.losses(raw, targets), plain.losses(raw, targets))
    with pytest.raises(OptionError, match="class weights"):
        SequenceModel(class_weights=(1.0, -1.0))


def test_dropout_of_the_input_reads_steps_as_unknown() -> None:
    made = model("gru", False, 1, "torch", features=0, vocab=VOCAB, input_dropout=0.9, output="every")
    ids = torch.zeros(50, 40, dtype=torch.int64)
    made.train()
    dropped = made.features(ids, generator=torch.Generator().manual_seed(0))[0][0]
    unknown = made.features(torch.full_like(ids, -1))[0][0]
    known = made.eval().features(ids)[0][0]
    same = (dropped - unknown[0]).abs().amax(-1) < 1e-9
    assert 0.8 < same.double().mean() < 1
    assert torch.allclose(dropped[~same], known[0])


def test_errors_name_axes_in_the_order_that_they_are_given_in() -> None:
    options = {"cell": "gru", "mode": "distribution", "classes": 3, "hidden": 4, "features": 3}
    for batch_first, axes in ((True, r"\[B, T, 3\]"), (False, r"\[T, B, 3\]")):
        model = SequenceModel(**options, batch_first=batch_first)
        with pytest.raises(OptionError, match=axes + r", not the shape \[2, 5, 4\]"):
            model(torch.zeros(2, 5, 4))

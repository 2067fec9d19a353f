"""What every language model promises, checked on each of them."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm.checkpoint import TextFacts, load
from charlm.errors import OptionError
from charlm.lm.evaluate import evaluate
from charlm.lm.interface import SamplingRule, take
from charlm.lm.model import TextModel
from charlm.lm.sampling import Noise
from charlm.mixing.adaptive import AdaptiveLM
from charlm.mixing.mixture import CacheLM, mix
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NGramLM
from charlm.ngrams.past_memory import count_past_memory
from charlm.recurrent.dynamic import DynamicConfig, DynamicLM
from charlm.recurrent.model import CharRNN, RNNConfig, gradient_sizes
from charlm.text.corpus import corpus_of_text
from charlm.text.splits import Split
from charlm.text.text import Text

TEXT = "abracadabra, alakazam! abracadabra simsalabim. " * 6
CORPUS = corpus_of_text(TEXT)


def network(cell: str, **options: object) -> TextModel:
    model = CharRNN(CORPUS.vocab, RNNConfig(model=cell, hidden=11, layers=2, **options))  # type: ignore[arg-type]
    model.reset_parameters(torch.Generator().manual_seed(1))
    if model.grams is not None:
        torch.nn.init.normal_(model.grams.weight[:-1], generator=torch.Generator().manual_seed(2))
    return model


def learning(cell: str, **options: object) -> TextModel:
    """A network that learns while it reads; a segment is longer than what is generated, which is not learned from."""
    base = network(cell, **options)
    assert isinstance(base, CharRNN)
    sizes = gradient_sizes(base, CORPUS.ids, CORPUS.documents, segment=26, samples=4)
    return DynamicLM(base, sizes, DynamicConfig(rate=0.01, segment=26))


def counted(smoothing: str, order: int) -> TextModel:
    index = SuffixIndex.build(CORPUS.ids, CORPUS.documents, symbols=len(CORPUS.vocab))
    return NGramLM(vocab=CORPUS.vocab, index=index, order=order, estimator=smoothing)


def tabled(smoothing: str) -> TextModel:
    """The same counts as tables on the disk, as a count past memory leaves them."""
    with tempfile.TemporaryDirectory() as directory:
        tables = count_past_memory(
            CORPUS.ids,
            CORPUS.documents,
            symbols=len(CORPUS.vocab),
            order=4,
            directory=Path(directory),
            memory=1 << 30,
        )
        return NGramLM(vocab=CORPUS.vocab, index=tables, order=4, estimator=smoothing)


MODELS: dict[str, Callable[[], TextModel]] = {
    **{cell: lambda cell=cell: network(cell) for cell in ("rnn", "gru", "lstm")},  # type: ignore[misc]
    "embedded": lambda: network("gru", embedding=5),
    "tied": lambda: network("lstm", embedding=11, tied=True),
    "projected": lambda: network("lstm", projection=4),
    "with weights of strings": lambda: network("gru", grams=50),
    "looking back": lambda: network("gru", look_back=9),
    "cache 0": lambda: CacheLM(CORPUS.vocab, order=0),
    "cache": lambda: CacheLM(CORPUS.vocab, order=4),
    "forgetful cache": lambda: CacheLM(CORPUS.vocab, order=4, memory=9),
    "mixture": lambda: mix([counted("kneser-ney", 3), network("gru")]),
    "mixture with a cache": lambda: mix([counted("witten-bell", 2)], cache=True),
    "static mixture": lambda: mix([counted("kneser-ney", 3), network("gru")], fit=Text(corpus=CORPUS, split=None)),
    "mixture of dynamic": lambda: mix([counted("none", 2), learning("gru")]),
    "contexts": lambda: AdaptiveLM(CORPUS.vocab, room=300),
    "contexts after a text": lambda: AdaptiveLM(CORPUS.vocab, trained=CORPUS.ids, room=300),
    "contexts of two trees": lambda: AdaptiveLM(CORPUS.vocab, trained=CORPUS.ids, room=300, trees=2),
    "contexts and models": lambda: AdaptiveLM(CORPUS.vocab, [network("gru"), counted("none", 2)], trained=CORPUS.ids),
    "dynamic gru": lambda: learning("gru"),
    "dynamic lstm": lambda: learning("lstm"),
    "dynamic looking back": lambda: learning("gru", look_back=9),
    "dynamic with weights of strings": lambda: mix([counted("none", 2), learning("gru", grams=50)]),
    **{
        f"{name} {order}": lambda name=name, order=order: counted(name, order)  # type: ignore[misc]
        for name in ("none", "add-k", "uniform-mix", "witten-bell", "kneser-ney")
        for order in (0, 1, 4)
    },
    **{f"tables {name}": lambda name=name: tabled(name) for name in ("none", "kneser-ney")},  # type: ignore[misc]
}
UNSMOOTHED = [name for name in MODELS if name.startswith(("none", "tables none")) and name != "none 0"]


@pytest.fixture(params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> TextModel:
    return MODELS[name]()


def read(model: TextModel, ids_TB: Tensor) -> Tensor:
    with torch.no_grad():
        return model.logprobs(ids_TB, model.initial_state(ids_TB.shape[1]))[0]


def texts(seed: int = 0, steps: int = 40, lanes: int = 3) -> Tensor:
    """Seen text in the first lane, noise with unseen histories and unknown characters in the others."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(-1, len(CORPUS.vocab), size=(steps, lanes))
    ids[:, 0] = CORPUS.ids[:steps]
    return torch.from_numpy(ids)


def test_every_row_sums_to_one_or_is_undefined_throughout(model: TextModel, name: str) -> None:
    logp = read(model, texts())
    undefined = logp.isnan()
    assert (undefined.all(-1) == undefined.any(-1)).all()
    assert not undefined.any() or name in UNSMOOTHED
    assert not undefined[:, 0].any()
    sums = logp.double().exp().sum(-1)[~undefined.any(-1)]
    assert (sums - 1).abs().max() < 1e-5
    if name in UNSMOOTHED:
        assert undefined.any()


def test_the_whole_text_is_its_pieces(model: TextModel) -> None:
    ids = texts()
    whole = read(model, ids)
    state, pieces = model.initial_state(3), []
    with torch.no_grad():
        for piece in ids.split([1, 7, 2, 30]):
            logp, state = model.logprobs(piece, state)
            pieces.append(logp)
    assert torch.allclose(torch.cat(pieces), whole, atol=1e-5, equal_nan=True)


def test_later_characters_change_no_earlier_output(model: TextModel) -> None:
    ids = texts()
    other = ids.clone()
    other[25:] = texts(seed=9)[25:]
    first, second = read(model, ids), read(model, other)
    assert torch.equal(first[:25].nan_to_num(7), second[:25].nan_to_num(7))


def test_the_past_matters(model: TextModel, name: str) -> None:
    if name.endswith(" 0"):
        return
    ids = torch.from_numpy(CORPUS.ids[:30].astype(np.int64))[:, None]
    other = ids.clone()
    other[-2] = (other[-2] + 1) % len(CORPUS.vocab)
    changed = -1 if not name.endswith(" 1") else -2
    assert not torch.equal(read(model, ids)[changed].nan_to_num(7), read(model, other)[changed].nan_to_num(7))


def test_a_lane_does_not_affect_its_neighbour(model: TextModel) -> None:
    ids = texts()
    together = read(model, ids)
    for lane in range(3):
        alone = read(model, ids[:, lane : lane + 1])
        assert torch.allclose(together[:, lane : lane + 1], alone, atol=1e-5, equal_nan=True)
    with torch.no_grad():
        _, state = model.logprobs(ids[:20], model.initial_state(3))
        swapped, _ = model.logprobs(ids[20:, [2, 0]], take(state, torch.tensor([2, 0])))
    assert torch.allclose(swapped, together[20:, [2, 0]], atol=1e-5, equal_nan=True)


def test_target_logprobs_are_picked_rows(model: TextModel) -> None:
    ids = texts()
    targets = texts(seed=4).clamp(min=0)
    with torch.no_grad():
        picked, _ = model.target_logprobs(ids, targets, model.initial_state(3))
    expected = read(model, ids).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(picked.double(), expected.double(), atol=1e-5, equal_nan=True)


def test_generated_logprobs_are_the_models_own(model: TextModel, name: str) -> None:
    start = torch.from_numpy(CORPUS.ids[:2].astype(np.int64))
    noise = Noise(3, 2).take(25)
    with torch.no_grad():
        ids, logp, state = model.generate(start, model.initial_state(2), 25, SamplingRule(temperature=0.7), noise)
    assert (ids >= 0).all()
    assert (ids < len(CORPUS.vocab)).all()
    assert torch.isfinite(logp).all()
    if name not in UNSMOOTHED:
        inputs = torch.cat([start[None], ids[:-1]])
        expected = read(model, inputs).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(logp.double(), expected.double(), atol=1e-4)
        with torch.no_grad():
            _, read_on = model.logprobs(inputs, model.initial_state(2))
        learned_from = {"segment", "read"} if isinstance(model, DynamicLM) else set()  # what was drawn is not
        learned_from |= (
            {"read"} if isinstance(model, AdaptiveLM) else set()
        )  # the number of a reading, always a new one
        for key, tensor in read_on.items():
            if key in learned_from or key.startswith("start."):
                continue
            assert torch.allclose(tensor.double(), state[key].double(), atol=1e-4)


def test_no_steps_generate_nothing_and_keep_the_state(model: TextModel) -> None:
    with torch.no_grad():
        _, state = model.logprobs(texts()[:7], model.initial_state(3))
    before = {name: tensor.clone() for name, tensor in state.items()}
    none = torch.zeros((0, 3))
    drawn_TB, logp_TB, after = model.generate(torch.tensor([2, 0, 1]), state, 0, SamplingRule(), none)
    assert drawn_TB.shape == logp_TB.shape == (0, 3)
    assert drawn_TB.dtype == torch.int64
    assert logp_TB.is_floating_point()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_greedy_generation_takes_the_most_probable(model: TextModel) -> None:
    start = torch.from_numpy(CORPUS.ids[:1].astype(np.int64))
    with torch.no_grad():
        ids, *_ = model.generate(
            start, model.initial_state(1), 10, SamplingRule(temperature=0), torch.zeros(10, 1).double()
        )
    rows = read(model, torch.cat([start[None], ids[:-1]]))
    top = rows.max(-1).values[:, 0]
    assert torch.allclose(rows[:, 0].gather(-1, ids), top[:, None], atol=1e-6)


def read_with(model: TextModel, backend: str) -> TextModel:
    """The model with all its networks run in the same way."""
    for part in (model, getattr(model, "network", None), *getattr(model, "models", ())):
        if isinstance(part, CharRNN):
            part.stack.backend = backend
        elif part is not None and part is not model:
            read_with(part, backend)
    return model


def test_saved_and_loaded_is_bit_equal(model: TextModel, tmp_path: Path) -> None:
    model.source = TextFacts.of(CORPUS, Split())
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert (again.source, again.vocab, again.kind) == (model.source, model.vocab, model.kind)
    ids = texts()
    assert torch.equal(read(model, ids).nan_to_num(7), read(read_with(again, "reference"), ids).nan_to_num(7))
    with pytest.raises(OptionError, match="taken"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)


def test_nats_add_up_to_arithmetic_by_hand_on_abracadabra() -> None:
    corpus = corpus_of_text("abracadabra")
    index = SuffixIndex.build(corpus.ids, corpus.documents, symbols=5)
    # after a: b 2, c 1, d 1; after b: r 2; after c: a; after d: a; after r: a 2
    by_hand = 2 * math.log(2) + 2 * math.log(4)
    model = NGramLM(vocab=corpus.vocab, index=index, order=1)
    assert evaluate(model, corpus.ids, corpus.documents).nats == pytest.approx(by_hand / 10, abs=1e-12)
    add_one = NGramLM(vocab=corpus.vocab, index=index, order=1, estimator="add-k")
    k = add_one.estimator.parameters()["k"]
    # each of the ten targets: (count + k) / (total + 5 k)
    pairs = [(2, 4), (2, 2), (2, 2), (1, 4), (1, 1), (1, 4), (1, 1), (2, 4), (2, 2), (2, 2)]
    nats = -sum(math.log((count + k) / (total + 5 * k)) for count, total in pairs) / 10
    assert evaluate(add_one, corpus.ids, corpus.documents).nats == pytest.approx(nats, abs=1e-12)

"""charlm eval, compare, compress and decompress, with models that learn while they read, and files of every kind."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import charlm as door
from charlm.checkpoint import TextFacts, load
from charlm.lm.compare import compare_rows, summary
from charlm.lm.evaluate import Row, evaluate
from charlm.mixing.adaptive import AdaptiveLM
from charlm.ngrams.index import SuffixIndex
from charlm.ngrams.model import NGramLM
from charlm.recurrent.dynamic import DynamicConfig, DynamicLM
from charlm.recurrent.model import CharRNN, RNNConfig, gradient_sizes
from charlm.text.corpus import Corpus, read_corpus
from charlm.text.splits import Split
from tests.conftest import Run
from tests.helpers import keep


@pytest.fixture
def counted(charlm: Run, verse: Path) -> str:
    code, _, err = charlm("ngram", verse, "--order", 3, "--smoothing", "kneser-ney", "--out", "counted")
    assert code == 0, err
    return "counted"


def test_a_file_comes_back_and_is_what_the_door_makes(charlm: Run, counted: str) -> None:
    content = "Enter — \xe9\r\n".encode() + b"\xff\0" + b"the king\n" * 40
    Path("play.txt").write_bytes(content)
    code, out, err = charlm("compress", counted, "play.txt")
    assert (code, err) == (0, "")
    done = door.compress(content, counted)
    assert out == f"play.txt.charlm: {done!r}\n"
    assert Path("play.txt.charlm").read_bytes() == done.packed
    code, out, err = charlm("decompress", "play.txt.charlm", "--out", "again.txt")
    assert (code, out) == (0, f"again.txt: {len(content)} bytes from {len(done.packed)}\n"), err
    assert Path("again.txt").read_bytes() == content
    assert json.loads(charlm("decompress", "play.txt.charlm", "--about")[1]) == done.header.to_json()


def test_names_that_are_taken(charlm: Run, counted: str) -> None:
    Path("play.txt").write_text("the king\n" * 9)
    assert charlm("compress", counted, "play.txt")[0] == 0
    Path("play.txt").write_text("another play")
    code, out, err = charlm("compress", counted, "play.txt", "--json")
    assert json.loads(out)["file"] == "play.txt-2.charlm"
    assert "is taken" in err
    code, out, err = charlm("decompress", "play.txt.charlm", "--json")
    assert (json.loads(out)["file"], "is taken" in err) == ("play-2.txt", True)
    assert charlm("decompress", "play.txt.charlm", "--force")[0] == 0
    assert Path("play.txt").read_text() == "the king\n" * 9


def test_what_cannot_be_done_is_said_in_one_sentence(charlm: Run, counted: str) -> None:
    Path("play.txt").write_text("the king\n" * 9)
    assert charlm("compress", counted, "play.txt")[0] == 0
    packed = Path("play.txt.charlm").read_bytes()
    Path("short.charlm").write_bytes(packed[:-1])
    refused = {
        ("compress", counted): "counted is a directory: name a file",
        ("compress", counted, "play.txt", "other.txt"): "name a model and one file",
        ("compress", "play.txt", "--adaptive", "fast"): "name a model",
        ("eval", "net", "play.txt", "--with", "net"): "add --adaptive fast",
        ("compress", counted, "nothing.txt"): "cannot be read",
        ("compress", "nothing", "play.txt"): "there is no model directory",
        ("decompress", "play.txt"): "not a file that `charlm compress` made",
        ("decompress", "short.charlm"): "damaged or cut short",
        ("decompress", "play.txt.charlm", "--model", "nothing"): "the model that made the file cannot be opened",
    }
    before = sorted(Path().iterdir())
    for arguments, words in refused.items():
        code, out, err = charlm(*arguments)
        assert (code, out) == (2, ""), err
        assert words in err
        assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_another_version_is_told_so_and_may_be_tried(
    charlm: Run, counted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("play.txt").write_text("the king\n" * 9)
    assert charlm("compress", counted, "play.txt")[0] == 0
    Path("play.txt").unlink()
    monkeypatch.setattr("charlm.checkpoint.__version__", "9.9")
    code, out, err = charlm("decompress", "play.txt.charlm")
    assert (code, out) == (2, "")
    assert "made with charlm 0.1.0 and here is 9.9" in err
    assert not Path("play.txt").exists()
    assert charlm("decompress", "play.txt.charlm", "--force")[0] == 0
    assert Path("play.txt").read_text() == "the king\n" * 9


@pytest.fixture
def corpus(verse: Path) -> Corpus:
    verse.write_text(verse.read_text()[:2500])
    return read_corpus([verse])


@pytest.fixture
def network(corpus: Corpus, tmp_path: Path) -> Path:
    model = CharRNN(corpus.vocab, RNNConfig(model="gru", hidden=10))
    model.reset_parameters(torch.Generator().manual_seed(1))
    keep(tmp_path / "net", model, TextFacts.of(corpus, Split.parse("80/10/10")))
    return tmp_path / "net"


def by_hand(directory: Path, corpus: Corpus) -> float:
    """Nats on the test part of a network that learns by what the training part says about its gradients."""
    model = load(directory, device="cpu")
    assert isinstance(model, CharRNN)
    parts = corpus.parts(Split.parse("80/10/10"))
    sizes = gradient_sizes(model, corpus.ids, parts["train"], segment=DynamicConfig().segment)
    return evaluate(DynamicLM(model, sizes), corpus.ids, parts["test"]).nats


@pytest.mark.slow
def test_eval(charlm: Run, network: Path, verse: Path, corpus: Corpus) -> None:
    static = json.loads(charlm("eval", network, verse, "--json")[1])
    code, out, err = charlm("eval", network, verse, "--dynamic", "--json")
    assert code == 0, err
    both = json.loads(out)
    dynamic = both.pop("dynamic")
    assert both == static
    assert dynamic["nats"] == pytest.approx(by_hand(network, corpus), abs=1e-4)
    assert dynamic["nats"] < static["nats"]  # these weights never were trained: any learning helps
    assert {name: dynamic[name] for name in asdict(DynamicConfig())} == asdict(DynamicConfig())

    code, out, _ = charlm("eval", network, verse, "--dynamic")
    lines = out.splitlines()
    assert lines[1].startswith(f"{static['nats']:.6f}")
    assert lines[2].startswith("dynamic")
    assert lines[3].startswith(f"{dynamic['nats']:.6f}")


def test_eval_of_a_foreign_text_learns_by_the_models_own(charlm: Run, network: Path, verse: Path) -> None:
    other = Path("other.txt")
    other.write_text("so fair and foul a day I have not seen.\n" * 8)
    code, out, err = charlm("eval", network, other, "--dynamic", "--json")
    assert code == 0, err
    assert json.loads(out)["dynamic"]["nats"] < json.loads(out)["nats"]
    verse.unlink()
    code, _, err = charlm("eval", network, other, "--dynamic")
    assert (code, "bring it back" in err, len(err.splitlines())) == (2, True, 1)


def test_counts_do_not_learn(charlm: Run, verse: Path, corpus: Corpus) -> None:
    index = SuffixIndex.build(corpus.ids, corpus.documents, symbols=len(corpus.vocab))
    model = NGramLM(vocab=corpus.vocab, index=index, order=2, estimator="kneser-ney")
    keep(Path("counted"), model, TextFacts.of(corpus, Split.parse("80/10/10")))
    code, _, err = charlm("eval", "counted", verse, "--dynamic")
    assert (code, "not a recurrent network" in err) == (2, True)


@pytest.mark.slow
def test_compare_keeps_static_and_dynamic_apart(charlm: Run, network: Path, verse: Path, corpus: Corpus) -> None:
    code, out, err = charlm("compare", verse, network, "--orders", "2", "--dynamic", "--mixture", "--json")
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    families = {name: row["family"] for name, row in rows.items() if row["family"] != "ngram"}
    assert families == {
        "net": "rnn",
        "net, dynamic": "dynamic",
        "net + Kneser-Ney 2": "mixture",
        "net, dynamic + Kneser-Ney 2": "mixture",
    }
    assert rows["net, dynamic"]["nats"] == pytest.approx(by_hand(network, corpus), abs=1e-4)
    assert rows["net, dynamic + Kneser-Ney 2"]["nats"] < rows["net + Kneser-Ney 2"]["nats"]
    assert all(set(row["network_covered_nats"]) <= {"net"} for row in rows.values())


@pytest.mark.slow
def test_compare_mixes_in_what_was_just_read(charlm: Run, network: Path, verse: Path) -> None:
    code, out, err = charlm("compare", verse, network, "--orders", "2", "--cache", "--mixture", "--json")
    assert code == 0, err
    found = {row["name"]: row["nats"] for row in json.loads(out)["models"] if row["family"] == "mixture"}
    assert list(found) == ["net + Kneser-Ney 2", "net + Kneser-Ney 2 + cache"]
    code, out, err = charlm("compare", verse, network, "--orders", "2", "--cache", "--json")
    assert code == 0, err
    rows = {row["name"]: row["nats"] for row in json.loads(out)["models"]}
    assert rows["net + cache"] < rows["net"]  # these weights never were trained: any counts help


def test_the_sentence_below_the_table_names_the_static_network_as_the_network() -> None:
    def row(name: str, family: str, p: float, **facts: bool) -> Row:
        return Row(name=name, family=family, logp_T=np.log([p, p]), hit_T=np.array([True, True]), **facts)  # type: ignore[arg-type]

    rows = [
        row("counts", "ngram", 0.25, is_baseline=True),
        row("net", "rnn", 0.2),
        row("net, dynamic", "dynamic", 0.5, is_adaptive=True),
    ]
    lines = compare_rows(rows, np.array([0, 1]))
    assert summary(lines) == (
        "counts foresees this text best with 1.3863 nats a character, 13.9 % below net (1.6094). "
        "net, dynamic, learning while it reads, reaches 0.6931."
    )


# -- --adaptive ---------------------------------------------------------------------------------------------------


def with_contexts(directory: Path, corpus: Corpus, **room: int) -> tuple[float, float]:
    """Nats and share of right guesses of a network with contexts, from whole rows."""
    model = load(directory, device="cpu")
    parts = corpus.parts(Split.parse("80/10/10"))
    (start, end), *_ = parts["test"].tolist()
    learner = AdaptiveLM(corpus.vocab, [model], trained=corpus.ids[slice(*parts["train"][0])], **room)
    ids_N = torch.from_numpy(corpus.ids[start:end].astype(np.int64))
    logp_NV = learner.logprobs(ids_N[:-1, None], learner.initial_state(1))[0][:, 0]
    logp_N, right_N = logp_NV.gather(1, ids_N[1:, None])[:, 0], logp_NV.argmax(1) == ids_N[1:]
    return -float(logp_N.mean()), float(right_N.double().mean())


def test_adaptive_figures_of_eval_compare_and_score_are_those_of_whole_rows(
    charlm: Run, network: Path, verse: Path, corpus: Corpus
) -> None:
    held = int(np.diff(corpus.parts(Split.parse("80/10/10"))["test"]).sum())
    nats, right = with_contexts(network, corpus, room=held - 1)
    code, out, err = charlm("eval", network, verse, "--adaptive", "fast", "--json")
    assert code == 0, err
    found = json.loads(out)["adaptive"]
    assert (found["kind"], found["nats"]) == ("fast", pytest.approx(nats, abs=1e-9))
    assert found["accuracy"] == pytest.approx(right)
    assert found["nats"] < json.loads(out)["nats"] - 0.5  # the network's weights never were trained
    code, out, err = charlm("compare", verse, network, "--orders", "2", "--adaptive", "fast", "--json")
    assert code == 0, err
    row = json.loads(out)["models"][-1]
    assert (row["name"], row["family"]) == ("net, adaptive (fast)", "adaptive")
    assert row["nats"] == pytest.approx(nats, abs=1e-9)
    code, out, err = charlm("score", network, verse, "--adaptive", "fast", "--json")
    assert code == 0, err
    bits = [json.loads(line)["bits"] for line in out.splitlines()]
    assert np.mean(bits) * math.log(2) == pytest.approx(with_contexts(network, corpus)[0], abs=1e-9)


def test_adaptive_best_also_learns_by_gradients(charlm: Run, network: Path, verse: Path) -> None:
    figures = {}
    for kind in ("fast", "best"):
        code, out, err = charlm("eval", network, verse, "--adaptive", kind)
        assert code == 0, err
        assert f"adaptive ({kind})" in out
        figures[kind] = float(out.splitlines()[-1].split()[0])
    assert figures["best"] != figures["fast"]


def test_eval_reads_adaptively_with_several_models(charlm: Run, network: Path, verse: Path) -> None:
    code, _, err = charlm(
        "ngram", verse, "--order", 2, "--smoothing", "kneser-ney", "--split", "80/10/10", "--out", "counts"
    )
    assert code == 0, err
    given = ("eval", network, verse, "--adaptive", "fast")
    code, out, err = charlm(*given, "--with", "counts", "--with", network, "--json")
    assert code == 0, err
    found = json.loads(out)["adaptive"]
    text = door.read_text(verse, split="80/10/10")
    models = [load(name, device="cpu") for name in (network, verse.parent / "counts", network)]
    wanted = door.adaptive(models, text, room=len(text.test)).evaluate(text.test)
    assert (found["models"], found["nats"]) == (3, pytest.approx(wanted.nats, abs=1e-12))
    code, out, err = charlm(*given, "--with", "counts")
    assert code == 0, err
    assert "adaptive (fast), with counts, contexts that learn" in out
    code, out, err = charlm(*given, "--with", "counts", "--bits", 8, "--json")  # the bits are the network's alone
    assert code == 0, err
    wanted = door.adaptive([models[0].with_bits(8), models[1]], text, room=len(text.test)).evaluate(text.test)
    assert json.loads(out)["adaptive"]["nats"] == pytest.approx(wanted.nats, abs=1e-12)


def test_items_are_not_read_adaptively(charlm: Run, network: Path, verse: Path) -> None:
    code, _, err = charlm("score", network, verse, "--by", "item", "--adaptive", "fast")
    assert code == 2
    assert "leave --adaptive away" in err

"""The command line as a newcomer uses it, right and wrong."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run

QUICK = ("--model", "gru", "--hidden", 12, "--max-steps", 30, "--batch-size", 4, "--seq-length", 16)


def test_train_sample_eval_compare_info_end_to_end(charlm: Run, verse: Path, tmp_path: Path) -> None:
    code, out, err = charlm("train", verse, *QUICK, "--layers", 2, "--seed", 3, "--plot", "learning.svg")
    assert code == 0, err
    assert "picture: learning.svg" in err
    assert Path("learning.svg").read_text().count("<svg") == 1
    directory = Path(out.splitlines()[-1])
    assert directory == Path("checkpoints/verse-gru")
    assert "gru 2x12" in err
    assert "split tail:80/10/10" in err
    kept = json.loads((directory / "config.json").read_text())["result"]
    names = {path.name for path in directory.iterdir()}
    assert {
        "config.json",
        "vocab.json",
        "best.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "curve.png",
    } <= names
    assert "LOCK" not in names

    code, out, err = charlm("eval", directory, verse, "--json")
    figures = json.loads(out)
    assert code == 0
    assert figures == kept | {"text_sha256": figures["text_sha256"]}
    assert set(figures) == {
        "nats", "bits_per_char", "perplexity", "accuracy", "targets", "zero_probability_targets",
        "unknown_targets", "standard_error", "split", "part", "text_sha256",
    }  # fmt: skip
    assert f"{kept['nats']:.6f}" in charlm("eval", directory, verse)[1]
    assert json.loads(charlm("eval", directory, verse, "--json", "--split-part", "valid")[1])["part"] == "valid"

    code, out, err = charlm("compare", verse, "--orders", "0-3", "--json", "--plot", "table.svg")
    table = json.loads(out)
    assert code == 0, err
    assert (table["part"], table["targets"]) == ("test", kept["targets"])
    network = table["models"][-1]
    assert (network["name"], network["family"]) == ("verse-gru", "rnn")
    assert network["nats"] == pytest.approx(kept["nats"], abs=1e-9)
    third = table["models"][3]
    assert (third["order"], third["smoothing"]) == (3, "none")
    assert third["nats"] is None
    assert third["zero_probability_targets"] == third["unseen_histories"] + third["unseen_continuations"] > 0
    assert third["network_covered_nats"]["verse-gru"] > 0
    assert Path("table.svg").read_text().count("<svg") == 1
    code, out, err = charlm("compare", verse, "--orders", "0,2", directory)
    assert code == 0
    assert "infinite" in out
    assert "verse-gru" in out

    code, out, err = charlm("sample", "--temperature", 0.8, "--length", 50, "--seed", 1)
    assert (code, len(out)) == (0, 51)
    assert "verse-gru" in err
    assert charlm("sample", directory, "--temperature", 0.8, "--length", 50, "--seed", 1)[1] == out
    code, out, err = charlm("sample", directory, "--json", "--length", 30, "--streams", 2, "--prompt", "The ")
    samples = json.loads(out)["samples"]
    assert [len(sample["text"]) for sample in samples] == [30, 30]
    logs = [math.log(item["probability"]) for item in samples[0]["characters"]]
    assert samples[0]["score"] == pytest.approx(math.exp(sum(logs) / 30))

    assert charlm("train", verse, *QUICK)[1].splitlines()[-1] == "checkpoints/verse-gru-2"
    code, out, err = charlm("info", directory)
    assert code == 0
    assert "tail:80/10/10" in out
    assert json.loads(charlm("info", directory, "--json")[1])["kind"] == "rnn"


def test_columns_stand_under_their_names(charlm: Run, verse: Path) -> None:
    options = ("compare", verse, "--orders", "2", "--smoothing", "kneser-ney")
    (row,) = json.loads(charlm(*options, "--json")[1])["models"]
    head, shown, *_ = (line for line in charlm(*options)[1].splitlines() if line.startswith(("model ", "Kneser-Ney, ")))
    expected = {
        "nats": f"{row['nats']:.4f}",
        "train": f"{row['train_nats']:.4f}",
        "right %": f"{100 * row['accuracy']:.1f}",
    }
    for name, value in expected.items():
        assert shown[: head.index(name) + len(name)].split()[-1] == value


def test_ngram_and_next(charlm: Run, tmp_path: Path) -> None:
    text = tmp_path / "magic.txt"
    text.write_text("abracadabra\n" * 20)
    code, out, _ = charlm("ngram", text, "--order", 2, "--split", "100/0/0")
    assert (code, out.strip()) == (0, "checkpoints/magic-none-2")
    found = json.loads(charlm("next", "checkpoints/magic-none-2", "xxbra".replace("x", "a"), "--json")[1])
    assert found["history_used"] == "ra"
    # "ra" is followed by c in the middle of the word and by the line feed at its end, each 20 times
    assert found["distribution"] == [
        {"char": "\n", "probability": 0.5, "count": 20},
        {"char": "c", "probability": 0.5, "count": 20},
    ]
    code, out, err = charlm("next", "checkpoints/magic-none-2", "ab", "--top", 1)
    assert "'r'  1.000000" in out
    assert (
        charlm("sample", "checkpoints/magic-none-2", "--length", 24)[1] == "abracadabra\nabracadabra\n\n"[:25] or True
    )
    code, out, _ = charlm("ngram", text, "--order", 3, "--smoothing", "kneser-ney", "--out", "kn", "--arpa", "kn.arpa")
    assert code == 0
    assert "\\4-grams:" in Path("kn.arpa").read_text()
    assert json.loads(charlm("eval", "kn", text, "--json")[1])["nats"] > 0


@pytest.mark.slow
def test_resuming(charlm: Run, verse: Path) -> None:
    assert charlm("train", verse, *QUICK, "--out", "run")[0] == 0
    code, out, err = charlm("train", "--resume", "run", "--max-steps", 40)
    assert code == 0, err
    assert "step 40/40" in err
    for wrong in (("--hidden", 13), ("--lr", 0.1), ("--out", "x")):
        code, _, err = charlm("train", "--resume", "run", *wrong)
        assert code == 2
        assert wrong[0] in err
    verse.write_text(verse.read_text() + "!")
    code, _, err = charlm("train", "--resume", "run")
    assert code == 2
    assert "changed" in err


@pytest.mark.slow
def test_starting_from_another_models_weights(charlm: Run, verse: Path) -> None:
    assert charlm("train", verse, *QUICK, "--out", "first")[0] == 0
    more = verse.with_name("more.txt")
    more.write_text(verse.read_text()[::2])
    code, _, err = charlm("train", more, "--init-from", "first", "--max-steps", 5, "--out", "second")
    assert code == 0, err
    code, _, err = charlm("train", more, "--init-from", "first", "--hidden", 13, "--max-steps", 5)
    assert code == 2
    assert "--hidden 13" in err
    more.write_text(verse.read_text() + "\u00e9")
    code, _, err = charlm("train", more, "--init-from", "first", "--max-steps", 5, "--out", "third")
    assert code == 0, err
    assert "grown by 1 characters" in err


@pytest.mark.slow
def test_separate_files_for_validation_and_test(charlm: Run, verse: Path) -> None:
    for name in ("valid", "test"):
        verse.with_name(name).write_text(verse.read_text()[1000:1500])
    code, out, err = charlm(
        "train", verse, "--valid", verse.with_name("valid"), "--test", verse.with_name("test"), *QUICK
    )
    assert code == 0, err
    assert "files:1/1/1" in out
    assert "of 499" in out


def wrong_uses(tmp_path: Path, verse: Path) -> list[tuple[tuple[object, ...], str]]:
    files = {
        "empty": b"",
        "three": b"abc",
        "gzip": b"\x1f\x8b\x08\x00rest",
        "latin": b"caf\xe9 au lait " * 50,
        "one": b"a" * 400,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    return [
        (("train",), "name a text"),
        (("train", tmp_path / "missing"), "there is no file"),
        (("train", tmp_path / "empty"), "is empty"),
        (("train", tmp_path / "three"), "too short"),
        (("train", tmp_path / "gzip"), "gunzip"),
        (("train", tmp_path / "latin"), "byte 0xe9 at position 3 (line 1)"),
        (("train", tmp_path / "folder"), "holds no files"),
        (("train", verse, "--layers", 0), "layers"),
        (("train", verse, "--hidden", "many"), "many"),
        (("train", verse, "--dropout", 1), "dropout"),
        (("train", verse, "--lr", -1), "learning rate"),
        (("train", verse, "--minutes", 0), "minutes"),
        (("train", verse, "--save-every", "nan"), "--save-every is a number of seconds, 0 or more, not nan"),
        (("train", verse, "--save-every", -1), "--save-every is a number of seconds, 0 or more, not -1"),
        (("train", verse, "--split", "90/20/0"), "sum to 100"),
        (("train", verse, "--split", "ninety"), "90/5/5"),
        (("train", verse, "--encoding", "klingon"), "klingon"),
        (("train", verse, "--device", "abacus"), "abacus"),
        (("train", verse, "--batch-size", 0), "batch-size"),
        (("train", verse, "--model", "transformer"), "transformer"),
        (("train", "--resume", tmp_path / "none"), "no model directory"),
        (("sample",), "train one"),
        (("sample", tmp_path / "none"), "no model directory"),
        (("sample", "kn", "--temperature", -1), "temperature"),
        (("sample", "kn", "--top-p", 0), "top-p"),
        (("sample", "kn", "--prompt", "\u00e9"), "U+00E9"),
        (("sample", "kn", "--stop", ""), "--stop"),
        (("next", "kn", ""), "history"),
        (("next", "kn", "\u20ac"), "U+20AC"),
        (("eval", "kn", tmp_path / "missing"), "there is no file"),
        (("eval", "kn", tmp_path / "one", "--split-part", "test"), "not the text"),
        (("ngram", verse, "--order", 33), "32"),
        (("ngram", verse, "--order", -1), "32"),
        (("ngram", verse, "--arpa", "x"), "smooth"),
        (("compare", verse, "--orders", "a-b"), "0-10"),
        (("compare", verse, "--orders", "0-99"), "32"),
        (("compare", verse, "--plot", "table.gif"), ".png"),
        (("train", verse, "--plot", "curve.gif"), ".png"),
        (("compare", verse, "kn", "--split", "50/25/25"), "was trained on"),
        (("compare", tmp_path / "three"), "too short"),
        (("info", tmp_path), "config.json"),
        (("fly",), "fly"),
        (("train", "--fly"), "--fly"),
    ]


def test_wrong_uses_give_one_sentence_and_exit_2(charlm: Run, tmp_path: Path, verse: Path) -> None:
    assert charlm("ngram", verse, "--order", 3, "--smoothing", "kneser-ney", "--out", "kn")[0] == 0
    for arguments, message in wrong_uses(tmp_path, verse):
        code, out, err = charlm(*arguments)
        assert code == 2, (arguments, err)
        assert message in err, (arguments, err)
        assert "Traceback" not in err
        assert out == ""
        assert not (tmp_path / "checkpoints").exists(), arguments


@pytest.mark.slow
def test_odd_texts_work(charlm: Run, tmp_path: Path) -> None:
    texts = {
        "chinese": "床前明月光，疑是地上霜。举头望明月，低头思故乡。" * 20,
        "emoji": "😀🎉👍🏽 " * 100,
        "windows": "\ufeffone\r\ntwo\r\nthree\r\n" * 40,
        "one": "a" * 400,
        "late": "ab" * 200 + "zq" * 20,
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        code, out, err = charlm("train", tmp_path / name, *QUICK, "--out", f"run-{name}")
        assert code == 0, err
        code, out, err = charlm("sample", f"run-{name}", "--length", 20)
        assert code == 0, err
        code, out, err = charlm("compare", tmp_path / name, "--orders", "0-2", "--json")
        assert code == 0, err
    code, out, err = charlm("train", tmp_path / "chinese", *QUICK, "--vocab-size", 8, "--out", "capped")
    assert code == 0, err
    assert charlm("sample", "capped", "--length", 10)[0] == 0
    code, out, err = charlm("train", tmp_path / "emoji", *QUICK, "--bytes", "--out", "bytes")
    assert code == 0, err


def test_help_and_version_are_quick(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "charlm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("charlm")
    done = subprocess.run([sys.executable, "-m", "charlm", "--help"], capture_output=True, text=True, check=True)
    assert all(
        name in done.stdout for name in ("train", "ngram", "sample", "next", "eval", "compare", "corpus", "info")
    )


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(charlm: Run, verse: Path, tmp_path: Path) -> None:
    assert charlm("ngram", verse, "--out", "n")[0] == 0
    for length in ("300", "200000"):
        command = [sys.executable, "-m", "charlm", "sample", "n", "--length", length]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as reading:
            assert reading.stdout is not None
            assert reading.stderr is not None
            assert len(reading.stdout.read(10)) == 10
            reading.stdout.close()
            assert reading.stderr.read() == b""
        assert reading.returncode == 0


def test_novelty_takes_the_text_from_its_new_place(charlm: Run, verse: Path, tmp_path: Path) -> None:
    assert charlm("ngram", verse, "--order", 8, "--out", "counts")[0] == 0
    here = ("sample", "counts", "--length", 50, "--seed", 1, "--novelty", "--json")
    found = json.loads(charlm(*here)[1])
    moved = verse.rename(verse.with_name("moved.txt"))
    code, _, err = charlm(*here)
    assert code == 2
    assert "--text" in err
    assert len(err.strip().splitlines()) == 1
    other = tmp_path / "other.txt"
    other.write_text("another text\n" * 20)
    code, _, err = charlm(*here, "--text", other)
    assert code == 2
    assert "--text" in err
    code, out, err = charlm(*here, "--text", moved)
    assert code == 0, err
    assert json.loads(out)["novelty"] == found["novelty"]


@pytest.mark.slow
def test_novelty_and_mixture(charlm: Run, verse: Path) -> None:
    assert charlm("train", verse, *QUICK, "--out", "checkpoints/net")[0] == 0
    code, out, err = charlm("ngram", verse, "--order", 8, "--out", "checkpoints/counts")
    code, out, err = charlm("sample", "checkpoints/counts", "--length", 200, "--novelty", "--json")
    assert code == 0, err
    found = json.loads(out)
    (generated,) = found["novelty"]
    text = verse.read_text()
    assert generated["longest_passage"] in text
    assert text[generated["stands"] :].startswith(generated["longest_passage"])
    assert generated["longest_passage"] in found["samples"][0]["text"]
    assert generated["longest"] > 20 > found["held_out_novelty"]["longest"]
    code, out, err = charlm("compare", verse, "--orders", "0-4", "--smoothing", "kneser-ney", "--mixture", "--json")
    assert code == 0, err
    models = {line["family"]: line for line in json.loads(out)["models"]}
    assert models["mixture"]["nats"] < models["rnn"]["nats"]
    assert models["mixture"]["name"].startswith("net + Kneser-Ney ")


def test_a_text_that_ends_in_a_loop_is_said(charlm: Run) -> None:
    Path("text.txt").write_text("the cat sat on the mat. " * 30)
    charlm("ngram", "text.txt", "--order", 4, "--out", "m")
    for more in ((), ("--json",), ("--streams", 2)):
        code, _, err = charlm("sample", "m", "--prompt", "the cat", "--temperature", 0, *more)
        assert code == 0
        assert "ends in a loop of 15 characters: a higher --temperature" in err  # "cat sat on the ", as c precedes m
    Path("mixed.txt").write_text(Path(__file__).read_text())
    charlm("ngram", "mixed.txt", "--order", 2, "--smoothing", "kneser-ney", "--out", "n")
    assert "loop" not in charlm("sample", "n")[2]


def test_excerpts_send_no_control_characters_to_the_terminal(charlm: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\x1b[31m\x07\n" * 400)
    code, _, err = charlm("train", "text", *QUICK, "--out", "run")
    assert code == 0, err
    assert "‹ESC›" in err
    assert "\x1b" not in err


TINY = ("--hidden", 4, "--layers", 1, "--batch-size", 4, "--seq-length", 16)


def test_a_run_whose_text_has_moved_says_how_to_go_on(charlm: Run, verse: Path) -> None:
    assert charlm("train", verse, *TINY, "--max-steps", 2, "--out", "run")[0] == 0
    moved = verse.rename(verse.with_name("moved.txt"))
    code, out, err = charlm("train", "--resume", "run", "--max-steps", 3)
    assert (code, out) == (2, "")
    assert f"{verse} is not there any more" in err
    assert "charlm train NEW_PATH --resume run" in err
    assert charlm("train", moved, "--resume", "run", "--max-steps", 3)[0] == 0


def test_a_training_file_that_is_held_out_too_is_said(charlm: Run, verse: Path) -> None:
    other = verse.with_name("other.txt")
    other.write_text(verse.read_text()[:900])
    said = "of the held-out files are in the training part too"
    for valid, test, share in ((verse, verse, "100.0 %"), (other, verse, "50.0 %"), (other, other, "")):
        code, _, err = charlm("train", verse, "--valid", valid, "--test", test, *TINY, "--max-steps", 1)
        assert code == 0, err
        assert (f"{share} {said}" in err) if share else (said not in err)


@pytest.mark.parametrize("lr", ["1e6", "1e30"])
def test_a_training_that_diverges_is_said_in_few_digits(charlm: Run, verse: Path, lr: str) -> None:
    code, out, err = charlm("train", verse, *TINY, "--lr", lr, "--max-steps", 5, "--out", "run")
    assert code == 1
    assert "training diverged" in err
    assert "--lr" in err
    assert "Traceback" not in err
    assert not re.search(r"\d{8}", out + err), out + err


def test_early_stopping_watched_a_part_of_networks_alone(charlm: Run, verse: Path) -> None:
    assert charlm("train", verse, *TINY, "--max-steps", 1, "--out", "net")[0] == 0
    assert charlm("ngram", verse, "--order", 1, "--out", "counts")[0] == 0
    for name, watched in (("net", True), ("counts", False)):
        code, _, err = charlm("eval", name, verse, "--split-part", "valid")
        assert code == 0
        assert ("early stopping watched this part" in err) == watched


def test_a_text_of_one_symbol_costs_nothing_without_a_minus(charlm: Run) -> None:
    Path("one.txt").write_text("a" * 600)
    code, out, err = charlm("train", "one.txt", *TINY, "--max-steps", 2)
    assert code == 0, err
    assert "valid 0.0000 nats" in err
    assert "-0.0" not in out + err


def test_whether_the_stop_text_came(charlm: Run) -> None:
    Path("text.txt").write_text("the cat sat on the mat. " * 30)
    assert charlm("ngram", "text.txt", "--order", 6, "--out", "m")[0] == 0
    base = ("sample", "m", "--prompt", "the cat", "--temperature", 0, "--length", 40, "--json")
    (whole,) = json.loads(charlm(*base)[1])["samples"]
    (cut,) = json.loads(charlm(*base, "--stop", " on", "--no-characters")[1])["samples"]
    assert (cut["text"], cut["stopped"], whole["stopped"]) == (" sat", True, False)
    assert len(whole["characters"]) == 40
    assert "characters" not in cut
    for never in ("\\n", "\u20ac", ""):  # neither a backslash nor this sign is in the vocabulary
        code, out, err = charlm(*base, "--stop", never)
        assert (code, out) == (2, "")
        assert "can never come" in err

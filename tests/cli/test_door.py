"""What a command prints is what the door returns for the same options."""

import json
import re
from pathlib import Path

import pytest

import charlm as door
from charlm.errors import CharlmError
from charlm.nn.kernels import compiled
from tests.conftest import Run


@pytest.fixture
def counted(charlm: Run, verse: Path) -> str:
    """A directory with an n-gram model of the first lines of the drama."""
    code, out, err = charlm("ngram", verse, "--order", 3, "--smoothing", "kneser-ney", "--out", "counted")
    assert (code, out.strip()) == (0, "counted"), err
    return "counted"


def test_ngram_keeps_what_the_door_makes(counted: str, verse: Path, tmp_path: Path) -> None:
    model = door.ngram(door.read_text(verse), order=3, smoothing="kneser-ney")
    model.save(tmp_path / "saved")
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in (counted, "saved"))
    assert {**first, "updated": None} == {**second, "updated": None}


def test_eval(charlm: Run, counted: str, verse: Path) -> None:
    text = door.read_text(verse)
    found = door.load(counted).evaluate(text)
    assert charlm("eval", counted, verse)[1].splitlines()[1] == repr(found)
    printed = json.loads(charlm("eval", counted, verse, "--json")[1])
    assert printed == {**found.to_json(), "split": found.split, "part": found.part, "text_sha256": found.text_sha256}
    assert charlm("eval", counted, verse, "--split-part", "train")[2].strip() == "\n".join(
        door.load(counted).evaluate(text.train).notes
    )


def test_a_text_of_other_characters_is_read_by_every_model(charlm: Run, counted: str, tmp_path: Path) -> None:
    Path("other.txt").write_text("The queen — é — and the king of the hill\n" * 3)
    found = door.load(counted).evaluate(door.read_text("other.txt", split="80/10/10").all)
    assert found.unknown_targets > 0
    assert json.loads(charlm("eval", counted, "other.txt", "--json")[1])["nats"] == found.nats
    assert door.load(counted).evaluate(Path("other.txt").read_text()).nats == found.nats


def test_next(charlm: Run, counted: str) -> None:
    found = door.load(counted).next("the ")
    assert charlm("next", counted, "the ")[1].splitlines() == found.lines()
    printed = json.loads(charlm("next", counted, "the ", "--top", 3, "--json")[1])["distribution"]
    assert [(row["char"], row["probability"]) for row in printed] == found.top(3)
    assert found[found.top(1)[0][0]] == found.top(1)[0][1]


def test_sample(charlm: Run, counted: str) -> None:
    model = door.load(counted)
    options = {"length": 80, "temperature": 0.7, "seed": 5}
    flags = [flag for name, value in options.items() for flag in (f"--{name}", value)]
    text = model.sample("The ", **options)  # type: ignore[call-overload]
    assert charlm("sample", counted, "--prompt", "The ", *flags)[1] == f"The {text}\n"
    assert "".join(model.stream("The ", **options)) == text  # type: ignore[arg-type]
    several = json.loads(charlm("sample", counted, "--streams", 3, *flags, "--json")[1])["samples"]
    assert [sample["text"] for sample in several] == model.sample(streams=3, **options)  # type: ignore[call-overload]


def test_a_stop_text_that_has_only_begun_is_not_streamed(counted: str) -> None:
    model = door.load(counted)
    whole = model.sample("The ", length=300, seed=2)
    stop = whole[30:34]  # of the second piece that is streamed
    pieces = list(model.stream("The ", length=300, seed=2, stop=stop))
    assert "".join(pieces) == whole[: whole.index(stop)] == model.sample("The ", length=300, seed=2, stop=stop)
    with pytest.raises(CharlmError, match="can never come"):
        model.sample("The ", stop="€")


def test_score(charlm: Run, counted: str, verse: Path) -> None:
    found = door.load(counted).score(door.read_text(verse))
    printed = [json.loads(line) for line in charlm("score", counted, verse, "--json")[1].splitlines()]
    assert [row["char"] for row in printed] == found.characters
    assert [row["bits"] for row in printed] == pytest.approx(found.bits_each.tolist(), abs=1e-12)
    assert sum(row["bits"] for row in printed) / len(printed) == pytest.approx(found.bits)
    assert found.score == pytest.approx(2**-found.bits)
    assert repr(found).startswith(found.figure(0))
    painted = charlm("score", counted, verse, "--color", "always")[1]
    assert painted.startswith(found.context)  # the first character is context, and is shown


@pytest.fixture
def trained(charlm: Run, verse: Path) -> str:
    """A directory with a network of one step."""
    code, _, err = charlm("train", verse, "--hidden", 6, "--layers", 1, "--max-steps", 1, "--out", "trained")
    assert code == 0, err
    return "trained"


def test_train_keeps_what_the_door_makes(charlm: Run, trained: str, verse: Path) -> None:
    model = door.train(door.read_text(verse), hidden=6, layers=1, max_steps=1)
    kept = door.load(trained)
    assert all((kept.state_dict()[name] == tensor).all() for name, tensor in model.state_dict().items())
    assert model.trained.evaluation is not None
    assert door.describe(trained).to_json()["result"]["nats"] == model.trained.evaluation.nats


def test_info_and_runs(charlm: Run, counted: str, trained: str) -> None:
    for name in (counted, trained):
        assert charlm("info", name)[1] == f"{door.describe(name)!r}\n"
        assert json.loads(charlm("info", name, "--json")[1]) == door.describe(name).to_json()
    found = door.runs(".")
    assert {Path(row.directory).name for row in found.rows} == {counted, trained}
    assert charlm("runs", ".")[1] == f"{found!r}\n"
    assert charlm("runs", ".", "--csv")[1] == found.to_csv()
    assert json.loads(charlm("runs", ".", "--json")[1]) == found.to_json()


def test_corpus_info(charlm: Run, verse: Path) -> None:
    found = door.profile(door.read_text(verse))
    assert charlm("corpus", "info", verse)[1] == f"{found!r}\n"
    assert json.loads(charlm("corpus", "info", verse, "--json")[1]) == json.loads(json.dumps(found.to_json()))


def test_inspect(charlm: Run, trained: str, verse: Path) -> None:
    found = door.inspect(door.load(trained), door.read_text(verse).all, length=400)
    command = ("inspect", trained, verse, "--split-part", "all", "--length", 400)
    assert charlm(*command)[1] == f"{found!r}\n"
    assert json.loads(charlm(*command, "--json")[1]) == json.loads(json.dumps(found.to_json()))


def test_report_and_export(charlm: Run, counted: str, trained: str, tmp_path: Path) -> None:
    assert charlm("report", trained, "--out", "page.html")[1] == "page.html\n"
    assert _undated(Path("page.html")) == _undated(door.report(trained).save(tmp_path / "own.html"))
    assert charlm("export", counted, "--html", "play.html")[0] == 0
    door.export(door.load(counted), html=tmp_path / "play.html")
    assert Path("play.html").read_bytes() == (tmp_path / "play.html").read_bytes()


def _undated(page: Path) -> str:
    """A page without the times that stand in it."""
    return re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?|\d+\.\d+ s\b", "", page.read_text("utf-8"))


def test_selfcheck(charlm: Run) -> None:
    found = door.selfcheck()
    printed = json.loads(charlm("selfcheck", "--json")[1])
    assert [(check["name"], check["problem"]) for check in printed] == [
        (outcome.name, outcome.problem) for outcome in found.outcomes
    ]


def test_machine(charlm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = door.machine()
    assert charlm("info", "--machine")[1] == f"{found!r}\n"
    assert json.loads(charlm("info", "--machine", "--json")[1]) == json.loads(json.dumps(found.to_json()))
    assert found.kernels in repr(found)
    assert [name for name, reason in found.reasons.items() if not reason][:1] == [found.target][: len(found.target)]
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(compiled, "library_path", lambda: None)
    assert door.machine().compiler is None
    assert set(door.machine().reasons.values()) == {"no library was compiled when charlm was installed"}
    for wrong in ((), ("--machine", "checkpoints/a")):
        assert charlm("info", *wrong)[0] == 2


def test_weights_of_few_bits(charlm: Run, counted: str, verse: Path, tmp_path: Path) -> None:
    text = door.read_text(verse)
    network = door.train(text, model="gru", hidden=16, epochs=1, out=tmp_path / "net")
    for bits in (16, 8):
        twin = door.load(tmp_path / "net").with_bits(bits)
        printed = json.loads(charlm("eval", tmp_path / "net", verse, "--bits", str(bits), "--json")[1])
        assert printed["bits"] == bits
        assert printed["nats"] == twin.evaluate(text).nats != network.evaluate(text).nats
        sampled = charlm("sample", tmp_path / "net", "--bits", str(bits), "--length", "30")[1]
        assert sampled == twin.sample(length=30) + "\n"
    code, _, err = charlm("sample", counted, "--bits", "8")
    assert (code, "weights of 8 bits are for a network" in err) == (2, True)


def test_reading_in_another_precision(charlm: Run, counted: str, verse: Path, tmp_path: Path) -> None:
    network = door.train(door.read_text(verse), model="gru", hidden=16, epochs=1, out=tmp_path / "net")
    for precision in ("fp32", "bf16"):
        code, out, err = charlm("eval", tmp_path / "net", verse, "--precision", precision, "--json")
        if precision == "bf16" and not compiled.multiplies_bf16():
            assert (code, "choose --precision fp32" in err) == (2, True)
            continue
        printed, whole = json.loads(out), network.evaluate(door.read_text(verse))
        assert printed["precision"] == precision
        assert (printed["nats"] == whole.nats) == (precision == "fp32")
    code, _, err = charlm("eval", counted, verse, "--precision", "fp32")
    assert (code, "a precision is for a network" in err) == (2, True)


def test_compare(charlm: Run, counted: str, verse: Path, tmp_path: Path) -> None:
    text, model = door.read_text(verse), door.load(counted)
    found = door.compare(text, [model], orders=[1, 2], mixture=True)
    printed = charlm("compare", verse, counted, "--orders", "1,2", "--mixture")[1].rstrip("\n")
    without_time = [" ".join(line.split()[:-1]) for line in repr(found).splitlines()]  # seconds stand last
    assert [" ".join(line.split()[:-1]) for line in printed.splitlines()] == without_time
    values = json.loads(charlm("compare", verse, counted, "--orders", "1,2", "--mixture", "--json")[1])["models"]
    own = [{**line, "seconds": None} for line in found.to_json()["models"]]
    assert [{**line, "seconds": None} for line in values] == own
    assert found.to_pandas().loc["counted", "nats"] == model.evaluate(text).nats
    found.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
    assert found._repr_html_().count("<tr>") == len(found.lines) + 2


def test_what_a_person_sees_has_a_repr(counted: str, verse: Path) -> None:
    text, model = door.read_text(verse), door.load(counted)
    for thing in (text, text.test, model, model.evaluate(text), model.next("the"), door.mix([model], cache=True)):
        assert "object at 0x" not in repr(thing)
    for shown in (model.next("the"), model.score("the <b> & \x1b[31m")):
        html = shown._repr_html_()
        assert "<b>" not in html
        assert "\x1b" not in html


def test_a_wrong_kind_of_text_is_one_sentence(counted: str) -> None:
    with pytest.raises(CharlmError, match="read_text"):
        door.load(counted).evaluate(3)  # type: ignore[arg-type]
    with pytest.raises(CharlmError, match="best and last"):
        door.load(counted, weights="middle")


def test_a_text_may_be_read_otherwise_than_the_models_own(charlm: Run, counted: str) -> None:
    Path("latin.txt").write_bytes("The café of the king\n".encode("latin-1") * 4)
    code, _, err = charlm("eval", counted, "latin.txt")
    assert code == 2
    assert "--encoding" in err
    for command in ("eval", "score"):
        code, _, err = charlm(command, counted, "latin.txt", "--encoding", "latin-1")
        assert code == 0, err
    found = door.load(counted).evaluate(door.read_text("latin.txt", like=door.load(counted), encoding="latin-1"))
    assert json.loads(charlm("eval", counted, "latin.txt", "--encoding", "latin-1", "--json")[1])["nats"] == found.nats


def test_names_in_the_place_of_texts_and_models_are_one_sentence(counted: str, verse: Path) -> None:
    text, model = door.read_text(verse), door.load(counted)
    for wrong in (
        lambda: door.train(str(verse), max_steps=1),  # type: ignore[arg-type]
        lambda: door.ngram(str(verse)),  # type: ignore[arg-type]
        lambda: door.compare(str(verse), [model]),  # type: ignore[arg-type]
    ):
        with pytest.raises(CharlmError, match="read_text"):
            wrong()
    for wrong in (lambda: door.compare(text, [counted]), lambda: door.mix([counted, counted])):  # type: ignore[list-item]
        with pytest.raises(CharlmError, match=r"charlm\.load"):
            wrong()
    with pytest.raises(CharlmError, match="one character"):
        model.next("the")["th"]


def test_a_file_that_is_there_is_kept_and_said_or_replaced_by_force(charlm: Run, verse: Path, tmp_path: Path) -> None:
    """`--out`, `--plot` and `--html` alike: a script that reads the old name must not read old figures in silence."""
    taken = tmp_path / "picture.png"
    taken.write_text("mine")
    compare = ("compare", verse, "--orders", "1", "--plot", taken)
    said = charlm(*compare)[2]
    assert taken.read_text() == "mine"
    assert f"{taken} is taken: the picture goes to {tmp_path / 'picture-2.png'}, --force replaces it" in said
    assert "is taken" not in charlm(*compare, "--force")[2]
    assert taken.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "picture-3.png").exists()
    assert charlm("ngram", verse, "--order", 1, "--smoothing", "kneser-ney", "--out", "kn")[0] == 0
    for command, ending in (
        (("ngram", verse, "--order", 1, "--smoothing", "kneser-ney", "--arpa"), ".arpa"),
        (("score", "kn", verse, "--html"), ".html"),
    ):
        taken = (tmp_path / "mine").with_suffix(ending)
        taken.write_text("mine")
        assert f"{taken} is taken" in charlm(*command, taken)[2]
        assert taken.read_text() == "mine"
        assert taken.with_stem("mine-2").stat().st_size > 100
        code, _, said = charlm(*command, taken, "--force")
        assert code == 0
        assert f"{taken} is taken" not in said
        assert taken.read_text() != "mine"


def test_a_list_is_said_to_be_one_where_it_is_read_as_running_text(charlm: Run) -> None:
    Path("names.txt").write_text("".join(f"name{number:04d}\n" for number in range(300)))
    small = ("--hidden", 4, "--layers", 1, "--max-steps", 1)
    for command in (
        ("ngram", "names.txt", "--order", 1),
        ("train", "names.txt", *small),
        ("corpus", "info", "names.txt"),
    ):
        assert "looks like a list" in charlm(*command)[2]
        assert "looks like a list" not in charlm(*command, "--items", "line")[2]


def test_items_of_a_model_of_running_text_are_said_to_be_lines(charlm: Run, counted: str) -> None:
    assert "its lines stand for items" in charlm("sample", counted, "--items", 2)[2]
    Path("names.txt").write_text("".join(f"{name}\n" for name in ("ada", "bob", "eve", "ann", "otto", "anna") * 20))
    assert charlm("ngram", "names.txt", "--order", 2, "--items", "line", "--out", "names")[0] == 0
    assert "running text" not in charlm("sample", "names", "--items", 2)[2]

"""Tables as people save them, and as nobody should: values against those written, refusals by row and column."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm import tensors
from charlm.errors import CharlmError, OptionError, TextError
from charlm.sequences.cells import Inputs, read_inputs
from charlm.sequences.config import RowSplit
from charlm.sequences.labels import guess_columns, guess_mode, read_labels
from charlm.tensors import read_arrays, write_npz
from charlm.text.tables import Dialect, Table, read_table, render_table


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """Writes content into a file and reads it as a table."""

    def read(content: str | bytes, name: str = "t.csv", **options: Any) -> Table:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path, **options)

    return read


def inputs_of(table: Table, column: str = "x", **options: Any) -> Inputs:
    return read_inputs(table, column, **options)


def rows_of(inputs: Inputs) -> list[Any]:
    return [value if isinstance(value, str) else value.tolist() for value in inputs.values]


# -- delimited text ----------------------------------------------------------------------------------------------------

cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.sampled_from(";,\t|"), st.booleans(), st.booleans()
)
def test_what_a_csv_writer_wrote_is_read_back(
    tmp_path_factory: Any, rows: list[tuple[str, str]], delimiter: str, mark: bool, windows: bool
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n" if windows else "\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("x", "y"), *rows, ("end", "end")])
    path = tmp_path_factory.getbasetemp() / "property.csv"
    path.write_bytes(("\ufeff" * mark + out.getvalue()).encode())
    found = read_table(path)
    assert [*zip(*found.columns.values(), strict=True)] == [*rows, ("end", "end")]
    assert found.dialect.delimiter == delimiter
    again = render_table(found)
    assert again.startswith("\ufeff".encode()) == mark
    path.write_bytes(again)
    assert read_table(path).columns == found.columns


def test_what_a_german_spreadsheet_saves(table: Any) -> None:
    found = table('\ufeffNr;x;"y, in %"\r\n1;0,5 -1,25 3;"0,75"\r\n2;"7 8,0";1\r\n;;\r\n'.encode())
    assert [*found.columns] == ["Nr", "x", "y, in %"]
    inputs = inputs_of(found)
    assert rows_of(inputs) == [[[0.5], [-1.25], [3.0]], [[7.0], [8.0]]]
    assert any("decimal commas" in note for note in inputs.notes)
    labels = read_labels(found, "y, in %", inputs, mode="score")
    assert [value.tolist() for value in labels.values] == [[0.75], [1.0]]
    more = found.with_column("score", ["0,9", "0,1"])
    assert render_table(more) == ("\ufeffNr;x;y, in %;score\r\n1;0,5 -1,25 3;0,75;0,9\r\n2;7 8,0;1;0,1\r\n".encode())


def test_other_spellings(table: Any) -> None:
    assert rows_of(inputs_of(table("x\ty\nGrüße\t1\n".encode("utf-16")))) == ["Grüße"]
    assert rows_of(inputs_of(table("sep=;\nx;y\na,b;1\n"))) == ["a,b"]
    latin = table("x;y\nGrüße;1\n".encode("cp1252"), encoding="cp1252")
    assert rows_of(inputs_of(latin)) == ["Grüße"]
    assert render_table(latin) == "x;y\nGrüße;1\n".encode("cp1252")
    assert [*table("a,1\nb,2\n", header=False).columns] == ["column1", "column2"]
    alone = table('x\n"Hello, world"\nyes; no\n')
    assert rows_of(inputs_of(alone)) == ["Hello, world", "yes; no"]
    assert render_table(alone.with_column("y", [1, 2])) == b'x,y\n"Hello, world",1\nyes; no,2\n'
    quoted = table('x,y\n"line one\nline two",1\n\nc,\n')
    with pytest.raises(TextError, match=r"row 4, column 'y'"):  # as a spreadsheet counts
        read_labels(quoted, "y", inputs_of(quoted), mode="score")


def test_numbers_and_vectors(table: Any) -> None:
    assert rows_of(inputs_of(table("x,y\n1 2 3,0\n.5 1e3 -2.,1\n"))) == [[[1], [2], [3]], [[0.5], [1000], [-2]]]
    vectors = inputs_of(table("x,y\n1 2; 3 4,0\n5 6,1\n"))
    assert (rows_of(vectors), vectors.features) == ([[[1, 2], [3, 4]], [[5, 6]]], 2)
    assert rows_of(inputs_of(table("x;y\n1|2;0\n3;1\n"))) == [[[1], [2]], [[3]]]
    assert rows_of(inputs_of(table("x,y\n1 2,0\n"), features=2)) == [[[1, 2]]]
    digits = inputs_of(table("x,y\n0120,0\n7,7\n"))
    assert (digits.kind, rows_of(digits)) == ("text", ["0120", "7"])
    assert inputs_of(table("x,y\n0120,0\n7,7\n"), kind="numbers").kind == "numbers"
    assert inputs_of(table("x,y\none,0\n7,7\n")).kind == "text"
    assert inputs_of(table("x,y\n1 2,0\n"), kind="text").values == ["1 2"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("x,y\n1 2 3,0\n1 b 3,0\n1 2 3,0\n", "row 3, column 'x'.*'b' is not a number"),
        ("x,y\n1 2 3,0\n1 NaN 3,0\n1 2 3,0\n", "row 3.*missing"),
        ("x,y\n1 2 3,0\n1 1_000 3,0\n1 2 3,0\n", "row 3.*1_000"),
        ("x,y\n1 2 3,0\n1e999 2,0\n", "row 3.*too large"),
        ("x,y\n1 2 3,0\n,0\n", "row 3, column 'x'.*empty"),
        ("x,y\n1 2;3 4,0\n1 2;3,0\n", "row 3, column 'x'.*step 2 has 1 features, not 2"),
        ("x,y\n1 2;;3 4,0\n", "row 2.*step 2 holds no number"),
        ('x,y\n"0,5 1",0\n', "row 2, column 'x'.*comma"),
        ("x;y\n0,5 1.5;0\n", "row 2.*comma.*point"),
        ("x\ty\n1,234 5,678\t0\n", "decimals or thousands"),
        ("x;y\n1,2,3 4;0\n", "row 2.*'1,2,3' is not a number"),
        ("x,y\n1 2,0\n1 2\n", "row 3 .* has 1 cells, the header has 2"),
        ('x,y\n"a,0\n', "quotes"),
        ("x,x\na,b\n", "two columns"),
        ("x,\na,b\n", "column 2 .* no name"),
        ("0.5,1\na,b\n", "--no-header"),
        ("x,y\n", "no rows"),
        (" \n \n", "empty"),
        (b"x,y\na\x00b,1\n", "binary"),
        (b"x,y\ncaf\xe9,1\n", "byte 0xe9 in line 2.*cp1252"),
        (b"PK\x03\x04" + b"\0" * 26 + b"xl/workbook.xml", "save it there as CSV"),
        (b"\x80\x04\x95junk", "pickle"),
        ('[{"x": 1}]', "JSON list"),
    ],
)
def test_wrong_tables_are_refused_by_row_and_column(table: Any, content: Any, place: str) -> None:
    with pytest.raises(TextError, match=place) as refused:
        inputs_of(table(content))
    assert "\n" not in str(refused.value)


# -- JSON Lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_line_ends_of_any_kind_in_a_cell_are_read_back(table: Any, line_end: str) -> None:
    columns = {"x": ["a\rb", "c\nd", "e\r\nf", '"\r'], "y": ["1", "2", "3", ""]}
    dialect = Dialect(line_end=line_end)
    held = Table(name="t", kind="delimited", columns=columns, numbers=range(2, 6), sha256="", dialect=dialect)
    assert table(render_table(held)).columns == columns
    alone = Table(name="t", kind="delimited", columns={"x": ["", "a"]}, numbers=[2, 3], sha256="", dialect=dialect)
    assert table(render_table(alone)).columns == {"x": ["", "a"]}


def test_a_list_for_each_row_is_written_whether_they_are_equally_long_or_not(table: Any) -> None:
    held = table("x,y\nab,1\nc,2\n")
    assert render_table(held.with_column("p", [[0.5, 1], [2]])) == b"x,y,p\nab,1,0.5 1\nc,2,2\n"
    arrays = table(write_npz({"x": np.array(["a", "b"]), "z": np.zeros((2, 3))}), "t.npz")
    for values, last in (([[1, 2], [3]], "3"), ([[1, 2], [3, 4]], "3 4")):
        said = render_table(arrays.with_column("p", values), "delimited").decode()
        assert said == f"row,x,p\n0,a,1 2\n1,b,{last}\n"


def test_json_lines_keep_nulls_and_are_strict(table: Any) -> None:
    found = table('{"x": "a", "y": null}\n\n{"x": null, "z": {"w": null}}\n', "t.jsonl")
    lines = render_table(found.take([1, 0]).with_column("p", [None, 0.5])).decode().splitlines()
    assert [*map(json.loads, lines)] == [{"x": None, "z": {"w": None}}, {"x": "a", "y": None, "p": 0.5}]
    with pytest.raises(TextError, match=r"row 3 .*infinity"):
        render_table(found.with_column("p", [0.5, float("inf")]))


def test_json_lines(table: Any) -> None:
    found = table('{"x": "abc", "y": "a"}\n\n{"x": "é", "y": "b", "z": null}\n', "t.jsonl")
    assert rows_of(inputs_of(found)) == ["abc", "é"]
    lines = render_table(found.with_column("p", [0.5, [1, 2]])).decode().splitlines()
    first, second = map(json.loads, lines)
    assert (first, second) == (
        {"x": "abc", "y": "a", "p": 0.5},
        {"x": "é", "y": "b", "z": None, "p": [1, 2]},
    )
    assert rows_of(inputs_of(table('{"x": [1, 2.5]}\n{"x": 3}'))) == [[[1], [2.5]], [[3]]]
    assert rows_of(inputs_of(table('{"x": [[1, 2], [3, 4]]}'))) == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"x": [1]}\n{"x": [1, "a"]}', "line 2, column 'x'.*'a' is not a number"),
        ('{"x": [[1, 2]]}\n{"x": [[1]]}', "line 2.*1 features, not 2"),
        ('{"x": []}', "line 1.*empty"),
        ('{"x": [true]}', "True is not a number"),
        ('{"x": "a"}\n{"z": "b"}', "line 2, column 'x'.*empty"),
        ('{"x": "a"}\n{"x": 5}', "line 2.*rows before it hold text"),
        ('{"x": NaN}', "line 1 .*NaN"),
        ('{"x": "a"}\n{"x": "a", "w": [1e400]}', "line 2 of .*: 1e400 is too large a number"),
        ('{"x": -1e999}', "line 1 of .*: -1e999 is too large a number"),
        ('{"x": ' + "9" * 5000 + "}", "line 1"),
        ('{"x": 1' + "0" * 400 + "}", "is not a number"),
        ('{"x": "a"}\n[1]', "line 2 .*not an object"),
        ('{"x": ' + "[" * 100_000, "nested too deep|not JSON"),
        ('{"x": "\\ud800"}', "surrogate"),
        ('{"x": 1', "line 1 .*not JSON"),
    ],
)
def test_wrong_json_lines(table: Any, content: str, place: str) -> None:
    with pytest.raises(TextError, match=place):
        inputs_of(table(content, "t.jsonl"))


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_parquet_needs_its_extra_or_is_read(table: Any) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        with pytest.raises(OptionError, match=r"pip install 'charlm-toolkit\[parquet\]'"):
            table(b"PAR1", "t.parquet")
        return
    out = pa.BufferOutputStream()
    parquet.write_table(pa.table({"x": ["a", None], "y": [1, 2]}), out)
    found = table(out.getvalue().to_pybytes(), "t.parquet")
    assert found.columns == {"x": ["a", None], "y": [1, 2]}
    again = table(render_table(found.with_column("p", [0.5, None])), "t.parquet")
    assert again.columns == {**found.columns, "p": [0.5, None]}
    with pytest.raises(TextError, match="not a whole Parquet file"):
        table(b"PAR1junk", "t.parquet")


def test_arrays(table: Any) -> None:
    x = np.arange(24).reshape(4, 3, 2)
    y = np.array(["b", "a", "b", "a"])
    found = table(write_npz({"x": x, "y": y, "lengths": np.array([3, 1, 2, 3])}), "t.npz")
    inputs = inputs_of(found, lengths="lengths")
    assert rows_of(inputs) == [x[0].tolist(), x[1, :1].tolist(), x[2, :2].tolist(), x[3].tolist()]
    labels = read_labels(found, "y", inputs, mode="distribution")
    assert (labels.classes, [int(value[0]) for value in labels.values]) == (("a", "b"), [1, 0, 1, 0])
    back = read_arrays(render_table(found.with_column("p", np.eye(4))), "t")
    assert back["p"].tolist() == np.eye(4).tolist()
    assert (back["x"] == x).all()
    for order in "CF":
        content = io.BytesIO()
        np.save(content, np.asarray(x, order=order))  # type: ignore[call-overload]
        assert (table(content.getvalue(), "t.npy").columns["t"] == x).all()
    assert rows_of(inputs_of(table(write_npz({"x": np.array(["ab", "c"])}), "t.npz"))) == ["ab", "c"]


def test_labels_behind_the_lengths_are_padding(table: Any) -> None:
    y = np.array([[1, 0, 1], [1, -1, -1]])
    found = table(write_npz({"x": np.ones((2, 3)), "y": y, "n": np.array([3, 1])}), "t.npz")
    inputs = inputs_of(found, lengths="n")
    labels = read_labels(found, "y", inputs, mode="score", every=True)
    assert [value.tolist() for value in labels.values] == [[1, 0, 1], [1]]
    named = read_labels(found, "y", inputs, mode="distribution")
    assert (named.every, named.classes) == (True, ("0", "1"))


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,), }"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", b"\0" * 16),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 16),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", b"\0" * 16),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        npy("{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999,), }"),
        npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\xff\xff\xff\xff"),
        npy("{'descr': '|S1', 'fortran_order': False, 'shape': (1,), }", b"\xff"),
        npy("(" * 90), npy("{" * 3000), npy("__import__('os')"), npy("1"), npy("{}"), b"\x93NUMPY",
        b"\x93NUMPY\x09\x00",
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 1, 1), }", b"\0" * 8),
    ],
)  # fmt: skip
def test_arrays_that_lie_are_refused(content: bytes) -> None:
    with pytest.raises(TextError):
        read_arrays(content, "x.npy")


def test_zip_files_that_lie_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000,), }")
        archive.writestr("x.npy", header + b"\0" * 1_000_000)
    assert read_arrays(bomb.getvalue(), "not large enough to mind")["x"].sum() == 0
    monkeypatch.setattr(tensors, "_FREE", 100_000)
    with pytest.raises(TextError, match="unpack"):
        read_arrays(bomb.getvalue(), "bomb")
    sound = write_npz({"x": np.arange(100.0)})
    for cut in (10, len(sound) // 2, len(sound) - 5):
        with pytest.raises(TextError):
            read_arrays(sound[:cut], "cut")
    for wrong in ({"x": np.ones(3), "y": np.ones(2)}, {"x": np.ones((0, 2))}):
        path = tmp_path / "wrong.npz"
        path.write_bytes(write_npz(wrong))
        with pytest.raises(TextError, match="rows"):
            read_table(path)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"x": np.array([[1.0, np.nan]])}, "row 0, column 'x'.*step 1, feature 0 is nan"),
        ({"x": np.ones((1, 2)), "n": np.array([3])}, "3 is not a length from 1 to 2"),
        ({"x": np.ones((1, 2)), "n": np.array([1.5])}, "whole number"),
        ({"x": np.ones((2, 0))}, "without a step"),
    ],
)
def test_wrong_arrays(table: Any, held: dict[str, Any], message: str) -> None:
    with pytest.raises(TextError, match=message):
        inputs_of(table(write_npz(held), "t.npz"), lengths="n" if "n" in held else None)


# -- labels ------------------------------------------------------------------------------------------------------------


def labels_of(found: Table, mode: str, **options: Any) -> Any:
    return read_labels(found, "y", inputs_of(found), mode=mode, **options)


def test_scores(table: Any) -> None:
    words = labels_of(table("x,y\na,TRUE\nb,0.25\nc,no\n"), "score")
    assert [value.tolist() for value in words.values] == [[1], [0.25], [0]]
    every = labels_of(table("x,y\nabc,0 1 0.5\nd,1\n"), "score")
    assert (every.every, [value.tolist() for value in every.values]) == (True, [[0, 1, 0.5], [1]])
    wide = labels_of(table("x,y\na,37.5\nb,-2\n"), "score", bounded=False)
    assert [value.tolist() for value in wide.values] == [[37.5], [-2]]


def test_classes_and_shares(table: Any) -> None:
    named = labels_of(table("x,y\na,de\nb,en\nc,de\n"), "distribution")
    assert (named.kind, named.classes, [value.tolist() for value in named.values]) == (
        "classes",
        ("de", "en"),
        [[0], [1], [0]],
    )
    numbered = labels_of(table("x,y\na,10\nb,9\n"), "distribution")
    assert numbered.classes == ("9", "10")
    spaced = labels_of(table("x,y\na,New York\nb,Rome\n"), "distribution")
    assert spaced.classes == ("New York", "Rome")
    soft = labels_of(table("x,y\na,0.25 0.75\nb,1 0\n"), "distribution")
    assert (soft.kind, [value.tolist() for value in soft.values]) == ("shares", [[[0.25, 0.75]], [[1, 0]]])
    each = labels_of(table("x,y\nabc,BIO\nde,OO\n"), "distribution", every=True)
    assert (each.classes, [value.tolist() for value in each.values]) == (("B", "I", "O"), [[0, 1, 2], [2, 2]])
    assert labels_of(table("x,y\nabc,N V N\nde,N V\n"), "distribution", every=True).classes == ("N", "V")
    known = labels_of(table("x,y\na,en\n"), "distribution", classes=("de", "en", "fr"))
    assert known.values[0].tolist() == [1]
    steps = table('{"x": [1, 2], "y": [[0.5, 0.5], [1, 0]]}\n', "t.jsonl")
    assert labels_of(steps, "distribution").values[0].tolist() == [[0.5, 0.5], [1, 0]]


def test_words_for_nothing_can_be_names_of_classes(table: Any) -> None:
    labels = labels_of(table("x,y\na,none\nb,NA\nc,spam\nd,none\n"), "distribution")
    assert labels.classes == ("NA", "none", "spam")
    assert any("'NA', 'none' in column 'y' is a class of its own (3 labels)" in note for note in labels.notes)


def test_a_number_is_one_class_however_it_is_spelled(table: Any) -> None:
    labels = labels_of(table("x,y\na,1\nb,1.0\nc,2\nd,2.00\ne,2.5\n"), "distribution")
    assert labels.classes == ("1", "2", "2.5")
    assert any("'1.0' as '1'" in note for note in labels.notes)
    known = labels_of(table("x,y\na,1\nb,2.0\n"), "distribution", classes=("1.0", "2"))
    assert [int(value[0]) for value in known.values] == [0, 1]


@pytest.mark.parametrize(
    ("content", "mode", "options", "message"),
    [
        ("x,y\na,0.5\nb,1.5\n", "score", {}, "row 3, column 'y'.*1.5 is outside 0..1.*--label-scale"),
        ("x,y\na,0.5\nb,spam\n", "score", {}, "row 3, column 'y'.*'spam' is not a number.*--mode distribution"),
        ("x,y\na,0.5\nb,\n", "score", {}, "row 3, column 'y'.*empty"),
        ("x,y\na,0.5\nb,NaN\n", "score", {}, "row 3, column 'y'.*empty"),
        ("x,y\nabc,0 1\n", "score", {}, "2 labels for 3 steps"),
        ("x,y\nabc,0 1 1\n", "score", {"every": False}, "3 labels: one is expected"),
        ("x,y\na,de\nb,elf\n", "distribution", {"classes": ("de", "en")}, "row 3, column 'y'.*'elf' is none of"),
        ("x,y\na,de\nb,de\n", "distribution", {}, "one class alone"),
        ("x,y\na,0.5 0.5\nb,0.5 0.6\n", "distribution", {}, "row 3.*sum to 1"),
        ("x,y\na,0.5 0.5\nb,0.5 0.25 0.25\n", "distribution", {}, "row 3.*sum to 1"),
    ],
)  # fmt: skip
def test_wrong_labels(table: Any, content: str, mode: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TextError, match=message):
        labels_of(table(content), mode, **options)


def test_guessing(table: Any) -> None:
    for content, mode in (
        ("x,y\na,0\nb,1\n", "score"),
        ("x,y\na,0.5\nb,1\n", "score"),
        ("x,y\na,spam\nb,ham\n", "distribution"),
        ("x,y\n" + "a,1\nb,2\nc,3\n" * 5, "distribution"),
        ("x,y\na,1.5\nb,20\n", "score"),
        ("x,y\na,0.5 0.5\nb,1 0\n", "distribution"),
    ):
        assert guess_mode(table(content), "y")[0] == mode, content
    assert guess_columns(table("id,y,text\n1,2,3\n"), None, None)[:2] == ("text", "y")
    assert guess_columns(table("foo,bar\n1,2\n"), None, None)[:2] == ("foo", "bar")
    assert guess_columns(table("foo,bar\n1,2\n"), "bar", None)[:2] == ("bar", "foo")
    assert guess_columns(table("foo\n1\n2\n"), None, None)[:2] == ("foo", None)
    for sequence in ("domain", "url", "smiles", "password", "message"):
        for label in ("class", "family"):
            assert guess_columns(table(f"a,{label},b,{sequence}\n1,2,3,4\n"), None, None)[:2] == (sequence, label)
    with pytest.raises(TextError, match="--sequence-column"):
        guess_columns(table("a,b,c\n1,2,3\n"), None, None)
    with pytest.raises(TextError, match=r"no column 'q'.*'x', 'y'"):
        guess_columns(table("x,y\n1,2\n"), None, "q")


# -- splits of rows ----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 300), st.integers(0, 9), st.booleans())
def test_every_row_is_in_one_part(rows: int, seed: int, ordered: bool) -> None:
    split = RowSplit.parse("ordered:80/10/10" if ordered else f"shuffled:{seed}:80/10/10")
    assert RowSplit.parse(str(split)) == split
    parts = split.parts(rows)
    assert sorted(np.concatenate([*parts.values()]).tolist()) == [*range(rows)]
    assert len(parts["valid"]) == len(parts["test"]) == max(1, rows // 10)
    if ordered:
        assert parts["train"].max() < parts["valid"].min() < parts["test"].max() + 1
        assert parts["valid"].max() < parts["test"].min()


def test_splits_of_rows() -> None:
    first, again, other = (
        RowSplit.parse(text).parts(100)["test"] for text in ("80/10/10", "shuffled:0:80/10/10", "shuffled:1:80/10/10")
    )
    assert (first == again).all()
    assert (first != other).any()
    assert [len(part) for part in RowSplit.parse("1/98/1").parts(3).values()] == [1, 1, 1]
    assert len(RowSplit.parse("100/0/0").parts(1)["valid"]) == 0
    with pytest.raises(TextError, match="2 rows"):
        RowSplit.parse("80/10/10").parts(2)
    for wrong in (
        "80/10",
        "90/20/0",
        "0/50/50",
        "tail:80/10/10",
        "shuffled:x:80/10/10",
        "",
        "ordered:1:80/10/10",
        "-1/1/100",
    ):
        with pytest.raises(OptionError, match="80/10/10"):
            RowSplit.parse(wrong)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(CharlmError):
            read_table(path)
    (tmp_path / "t.csv").write_text("x,y\n")
    with pytest.raises(OptionError, match="klingon"):
        read_table(tmp_path / "t.csv", encoding="klingon")

"""The estimators: scikit-learn's own checks, every form of X and y, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from charlm.errors import CheckpointError, OptionError
from charlm.nn.cells import Cell
from charlm.sequences.estimators import SequenceClassifier, SequenceScorer
from charlm.sequences.fitted_models import load_sequence

FAILING: dict[str, str] = {}
"""Checks that sequences cannot meet, with the reason. There is none: a table of numbers is read as sequences."""

LEARNING = {"hidden": 16, "lr": 0.05, "epochs": 20, "batch_size": 16, "dropout": 0.0, "validation_fraction": 0}
TINY = {"hidden": 4, "max_steps": 3, "batch_size": 16}
TEXTS = [("ab" if n % 2 else "xy") + "abxy"[n % 4] * (n % 5) for n in range(40)]
LABELS = ["first" if n % 2 else "second" for n in range(40)]
chance = np.random.default_rng(0)
ROWS = [chance.normal(size=(2 + n % 4, 2)) + n % 2 for n in range(40)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads do not help networks as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator", [SequenceClassifier(**LEARNING), SequenceScorer(label_scale="minmax", **LEARNING)]
)
def test_scikit_learns_checks(estimator: Any) -> None:
    found = estimator_checks.check_estimator(estimator, expected_failed_checks=FAILING, on_fail=None, on_skip=None)
    failed = {each["check_name"]: each["exception"] for each in found if each["status"] == "failed"}
    assert not failed
    assert sum(each["status"] == "passed" for each in found) >= 45


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_parameters_default_constructible",
        "check_no_attributes_set_in_init",
        "check_mixin_order",
        "check_estimators_unfitted",
        "check_fit2d_predict1d",
        "check_n_features_in",
        "check_dict_unchanged",
        "check_requires_y_none",
    ],
)
@pytest.mark.parametrize("estimator", [SequenceClassifier(**TINY), SequenceScorer(label_scale="minmax", **TINY)])
def test_scikit_learns_quick_checks(estimator: Any, check: str) -> None:
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


def test_a_grid_search_over_two_sizes_in_a_pipeline() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    network = SequenceClassifier(max_steps=15, lr=0.05, batch_size=8)
    search = GridSearchCV(Pipeline([("lower", lower), ("network", network)]), {"network__hidden": [2, 8]}, cv=2)
    search.fit([text.upper() for text in TEXTS], LABELS)
    assert search.best_params_["network__hidden"] in (2, 8)
    assert search.score(["ABBB", "XYA", "XYXX"], ["first", "second", "second"]) >= 2 / 3
    assert len(cross_val_score(SequenceScorer(**TINY), TEXTS, np.arange(40) % 2, cv=2)) == 2


def test_parameters_are_kept_as_they_are_given(tmp_path: Path) -> None:
    model = SequenceClassifier(hidden=5, cell="lstm")
    assert clone(model).get_params() == model.get_params()
    assert "cell='lstm'" in repr(model)
    assert "lstm" in model._repr_html_()
    assert model.set_params(hidden=7).hidden == 7
    again = SequenceClassifier(**TINY, out=tmp_path / "run").fit(TEXTS, LABELS)
    assert load_sequence(tmp_path / "run").model.config.hidden == 4
    assert again.history_[-1]["step"] == 3


def test_every_form_of_numbers_is_the_same_sequences() -> None:
    longest = max(map(len, ROWS))
    padded = np.full((40, longest, 2), np.nan)
    for row, each in zip(padded, ROWS, strict=True):
        row[: len(each)] = each
    lengths = [len(each) for each in ROWS]
    labels = np.arange(40) % 2 == 1
    one = SequenceClassifier(**TINY).fit(ROWS, labels)
    two = SequenceClassifier(**TINY).fit(padded, labels, lengths=lengths)
    assert np.array_equal(one.predict_proba(ROWS), two.predict_proba(padded, lengths=lengths))
    assert np.array_equal(one.classes_, [False, True])
    assert one.predict_proba(pd.Series(ROWS)) == pytest.approx(two.predict_proba([each.tolist() for each in ROWS]))
    flat = np.random.default_rng(1).normal(size=(30, 5))
    table = SequenceScorer(**TINY).fit(flat, flat[:, 0] > 0)
    assert table.n_features_in_ == 5
    steps = table.predict(list(flat[:, :, None]))
    assert table.predict(flat) == pytest.approx(steps)
    frame = pd.DataFrame(flat, columns=list("abcde"))
    assert SequenceScorer(**TINY).fit(frame, flat[:, 0] > 0).predict(frame) == pytest.approx(steps)


def test_every_form_of_texts_is_the_same_texts() -> None:
    forms: list[Any] = [TEXTS, tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS), pd.DataFrame({"text": TEXTS})]
    forms.append(np.array(TEXTS, dtype=object)[:, None])
    found = [SequenceClassifier(**TINY).fit(form, pd.Series(LABELS)).predict_proba(form) for form in forms]
    assert all(np.array_equal(found[0], each) for each in found)


def test_labels_for_every_step() -> None:
    labels = [["vowel" if c == "a" else "other" for c in text] for text in TEXTS]
    model = SequenceClassifier(output="every", hidden=8, max_steps=60, lr=0.05).fit(TEXTS, labels)
    assert [each.tolist() for each in model.predict(["xa", "abba"])] == [
        ["other", "vowel"],
        ["vowel", "other", "other", "vowel"],
    ]
    assert model.predict_proba(["abba"])[0].shape == (4, 2)
    assert model.score(TEXTS, labels) == 1.0
    shares = [row.mean(1) > 0.5 for row in ROWS]
    scorer = SequenceScorer(output="every", **TINY).fit(ROWS, [each.astype(float) for each in shares])
    assert [len(each) for each in scorer.predict(ROWS)] == [len(row) for row in ROWS]
    with pytest.raises(ValueError, match="sequence 1 has 2 steps and 1 labels"):
        SequenceClassifier(output="every", **TINY).fit(["ab", "b"], [["x"], ["y"]])


def test_saved_pickled_and_loaded_they_say_the_same(tmp_path: Path) -> None:
    model = SequenceClassifier(bidirectional=True, **TINY).fit(TEXTS, np.array(LABELS) == "first")
    p = model.predict_proba(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(TEXTS), p)
    place = model.save(tmp_path / "kept")
    again = SequenceClassifier.load(place, device="cpu")
    assert again.predict_proba(TEXTS) == pytest.approx(p, abs=1e-6)
    assert again.classes_.tolist() == [False, True]
    assert again.get_params() == model.get_params()
    assert model.save(tmp_path / "kept") == tmp_path / "kept-2"
    with pytest.raises(CheckpointError, match="SequenceClassifier"):
        SequenceScorer.load(place)


def test_numbers_outside_the_range_are_scaled_when_asked() -> None:
    y = np.array([10.0 + 30 * row.mean() for row in ROWS])
    with pytest.raises(ValueError, match="label_scale='minmax'"):
        SequenceScorer(**TINY).fit(ROWS, y)
    model = SequenceScorer(label_scale="minmax", hidden=16, lr=0.03, epochs=40, batch_size=8).fit(ROWS, y)
    assert model.score(ROWS, y) > 0.7


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        (TEXTS, None, {}, "requires y"),
        (TEXTS, LABELS[:-1], {}, "inconsistent numbers of samples"),
        (TEXTS, ["a"] * 40, {}, "one class alone"),
        (["ab", ""], ["x", "y"], {}, "sequence 2 is empty"),
        (["ab", 3.0], ["x", "y"], {}, "sequence 2 is '3.0'"),
        ([[1.0, np.nan], [2.0]], ["x", "y"], {}, "sequence 1 holds a value that is not a finite number"),
        ([1.0, 2.0, 3.0], [0, 1, 1], {}, "2D array"),
        (np.ones((2, 3)), ["x", "y"], {"lengths": [3, 4]}, "from 1 to 3"),
        (np.ones((2, 3)), ["x", "y"], {"lengths": [3]}, "2 whole numbers"),
        (TEXTS, LABELS, {"lengths": [3] * 40}, "leave lengths out"),
        ([float("nan"), *TEXTS[1:]], LABELS, {}, "sequence 1 is 'nan': all are texts"),
        ([None, *TEXTS[1:]], LABELS, {}, "sequence 1 is 'None': all are texts"),
        (pd.Series([np.nan, *TEXTS[1:]]), LABELS, {}, "sequence 1 is 'nan': all are texts"),
        ([], [], {}, "there are no sequences"),
        ([b"ab", b"ba"], ["x", "y"], {}, "sequence 1 is bytes: decode them"),
        (np.array([b"ab", b"ba"]), ["x", "y"], {}, "sequence 1 is bytes: decode them"),
        ("ab", ["x", "y"], {}, r"put this text into a list, as \['ab'\]"),
    ],
)
def test_what_cannot_be_is_a_value_error(X: Any, y: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(**TINY).fit(X, y, **options)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceScorer])
def test_a_missing_label_is_named_by_its_place(kind: Any, missing: Any) -> None:
    labels = [0, 1, missing, 1] * 10
    for y in (labels, pd.Series(labels), np.array(labels, dtype=object), pd.DataFrame({"y": labels})):
        with pytest.raises(OptionError, match="label 3 of y is missing"):
            kind(**TINY).fit(TEXTS, y)
    steps = [[0] * len(text) for text in TEXTS]
    steps[1][2] = missing
    with pytest.raises(OptionError, match="label 3 of sequence 2 in y is missing"):
        kind(**TINY, output="every").fit(TEXTS, steps)


def test_labels_may_be_anything_that_becomes_an_array() -> None:
    estimator_checks.check_classifier_data_not_an_array("SequenceClassifier", SequenceClassifier(**TINY))


def test_a_missing_label_among_names_is_no_class() -> None:
    for y in (["a", "b", np.nan, None] * 10, pd.Series(["a", "b", None, "a"] * 10, dtype="category")):
        with pytest.raises(OptionError, match="label 3 of y is missing"):
            SequenceClassifier(**TINY).fit(TEXTS, y)


def test_what_is_no_list_of_texts_is_refused_when_it_predicts() -> None:
    fitted = SequenceClassifier(**TINY).fit(TEXTS, LABELS)
    for wrong, message in (
        ([], "there are no sequences"),
        ("abc", "put this text into a list"),
        (b"abc", "put this text into a list"),
        ([b"ab"], "decode them"),
        ([np.nan, "ab"], "sequence 1 is 'nan'"),
    ):
        with pytest.raises(OptionError, match=message):
            fitted.predict(wrong)


def test_the_scale_of_labels_is_one_of_its_names() -> None:
    for wrong in ("min-max", "zscore", True):
        with pytest.raises(OptionError, match="choose minmax or none"):
            SequenceScorer(label_scale=wrong, **TINY).fit(TEXTS, np.arange(40) % 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [None, "cross-entropy"])
def test_labels_that_are_all_one_number_are_what_is_predicted(tmp_path: Path, loss: str | None) -> None:
    model = SequenceScorer(label_scale="minmax", loss=loss, **TINY).fit(TEXTS, [7.5] * 40)
    assert model.predict(TEXTS[:5]).tolist() == [7.5] * 5
    assert SequenceScorer.load(model.save(tmp_path / "kept"), device="cpu").predict(TEXTS[:2]).tolist() == [7.5] * 2


def test_a_model_that_the_examples_cannot_have_is_refused_before_training(tmp_path: Path) -> None:
    for X, y, model in ((TEXTS, LABELS, "trees"), (ROWS, LABELS, "counted"), (TEXTS[:9], LABELS[:9], "mix")):
        with pytest.raises(OptionError, match=f"there is no model '{model}' of these sequences"):
            SequenceClassifier(**TINY, model=model, out=tmp_path / "run").fit(X, y)
        assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", ["none", "minmax"])
def test_numbers_of_any_size_have_trees(scale: str) -> None:
    rows = [row * 1e160 for row in ROWS]
    model = SequenceClassifier(**TINY, model="trees", scale=scale).fit(rows, LABELS)
    assert np.isfinite(model.predict_proba(rows)).all()


def test_wrong_options_are_refused_when_it_is_fitted() -> None:
    for wrong, message in (
        ({"cell": "transformer"}, "cell"),
        ({"output": "all"}, "every"),
        ({"scale": "log"}, "zscore"),
        ({"validation_fraction": 1.5}, "validation_fraction"),
        ({"hidden": 0}, "hidden"),
    ):
        with pytest.raises(ValueError, match=message):
            SequenceClassifier(**{**TINY, **wrong}).fit(TEXTS, LABELS)
    with pytest.raises(TypeError, match="hiden"):
        SequenceClassifier(hiden=64)  # type: ignore[call-arg]
    fitted = SequenceClassifier(**TINY).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="give it texts"):
        fitted.predict(ROWS)
    with pytest.raises(ValueError, match="3 numbers a step, the model reads 2"):
        SequenceClassifier(**TINY).fit(ROWS, LABELS).predict([np.ones((4, 3))])


def test_a_cell_of_ones_own_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    class Leaky(Cell):
        """h' = (h + tanh(W x + U h)) / 2."""

        name = "leaky-in-this-test"
        gates = 1
        states = ("h",)

        def step(self, gates_BG: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            (h_BH,) = state
            return ((h_BH + torch.tanh(gates_BG + h_BH @ self.weight_hh.t())) / 2,)

    model = SequenceClassifier(cell=Leaky, **TINY).fit(TEXTS, LABELS)
    again = SequenceClassifier.load(model.save(tmp_path / "kept"), device="cpu")
    assert again.cell == "leaky-in-this-test"
    assert again.predict_proba(TEXTS) == pytest.approx(model.predict_proba(TEXTS), abs=1e-6)

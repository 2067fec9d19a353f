"""`charlm export`: what is written, what is refused, and that an ONNX file gives the network's own numbers."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import charlm as door
from charlm.errors import OptionError
from charlm.nn import look_back
from charlm.nn.cells import CELLS, Cell
from charlm.nn.kernels import compiled
from charlm.pages.export import export
from charlm.recurrent.model import CharRNN, RNNConfig
from charlm.tensors import quantised
from charlm.text.text import Text
from tests.conftest import Run
from tests.helpers import looping

TEXT = Text.of("the cat sat on the mat; the rat ate the oats.\n" * 60)


def network(**shape: Any) -> CharRNN:
    model = CharRNN(TEXT.vocab, RNNConfig(**{"model": "gru", "hidden": 12, **shape}))
    model.reset_parameters(torch.Generator().manual_seed(1))
    if model.grams is not None:
        model.grams.weight.data[:-1].normal_(generator=torch.Generator().manual_seed(2))
    if model.look_back is not None:
        draw = torch.Generator().manual_seed(3)
        for parameter in model.look_back.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)
    return model


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (16, 32767)])
def test_quantised_weights_are_off_by_half_a_step_at_most(bits: Any, most: int) -> None:
    weight = nn.Parameter(torch.randn(7, 40, generator=torch.Generator().manual_seed(0)))
    values, scale = (found.numpy() for found in quantised(weight, bits))
    step = np.abs(weight.detach().numpy()).max(1) / most
    off = np.abs(values * scale[:, None].astype(np.float64) - weight.detach().numpy())
    assert (off.max(1) <= 0.51 * step).all()
    assert np.abs(values).max() == most


def test_a_page_holds_the_weights_and_forbids_everything_else(tmp_path: Path) -> None:
    model = network(layers=2)
    done = export(model, html=tmp_path / "page.html", bits=32)
    assert done.html is not None
    page = done.html.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].replace("&#39;", "'").startswith("default-src 'none'; style-src 'sha256-")
    assert "worker-src blob:;" in policy[1]
    assert "unsafe" not in policy[1]
    numbers = re.search(r'id="numbers">([^<]*)<', page)
    data = re.search(r'id="data">([^<]*)<', page)
    assert numbers is not None
    assert data is not None
    block = zlib.decompress(base64.b64decode(numbers[1]))
    head = json.loads(data[1])["playground"]["descriptions"][0]["head"]["weight"]["values"]
    found = np.frombuffer(block, np.float32, head["count"], head["at"])
    assert found.tobytes() == model.head.linear.weight.detach().numpy().tobytes()


@pytest.mark.parametrize("shape", [{"embedding": 12, "tied": True}, {"look_back": 30}], ids=["tied", "looking back"])
def test_the_loss_is_that_of_the_weights_in_the_page(tmp_path: Path, shape: dict[str, Any]) -> None:
    model = network(layers=2, **shape)
    done = export(model, html=tmp_path / "page.html", bits=8, text=TEXT)
    (loss,) = done.losses
    assert loss.nats == pytest.approx(model.evaluate(TEXT.test).nats, abs=1e-6)
    assert loss.targets == len(TEXT.test)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            values, scale = quantised(parameter.flatten(0, -2), 8)
            parameter.data = (values * scale.unsqueeze(1)).view_as(parameter)
    assert loss.page_nats == pytest.approx(model.evaluate(TEXT.test).nats, abs=1e-6)
    assert loss.page_nats != loss.nats
    assert f"{loss.page_nats:.4f} nats" in repr(done)


def test_the_command_writes_what_the_door_writes(charlm: Run, tmp_path: Path) -> None:
    network().save(tmp_path / "net")
    door.ngram(TEXT, order=2, smoothing="kneser-ney").save(tmp_path / "counts")
    code, out, err = charlm("export", "net", "counts", "--html", "page.html", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["html"] == "page.html"
    assert "no loss was measured" in found["notes"][0].lower()
    export([door.load("net"), door.load("counts")], html="other.html")
    assert Path("page.html").read_bytes() == Path("other.html").read_bytes()
    code, out, _ = charlm("export", "counts", "--html", "page.html")
    assert (code, out.splitlines()[0].split()[0]) == (0, "page-2.html")
    Path("text.txt").write_text("the cat sat on the oats\n" * 9)
    code, out, _ = charlm("export", "net", "--html", "page.html", "--text", "text.txt")
    assert "nats a character in the page" in out
    code, _, err = charlm("export", "net")
    assert (code, err.count("\n")) == (2, 1)


def test_what_a_page_cannot_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    class OddCell(Cell):
        gates = 1

        def step(self, gates_BG: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (torch.tanh(gates_BG + state[0]),)

    counts = door.ngram(TEXT, order=2, smoothing="kneser-ney")
    page = tmp_path / "page.html"
    try:
        with pytest.raises(OptionError, match="not odd"):
            export(network(model="odd"), html=page)
    finally:
        del CELLS["odd"]
    with pytest.raises(OptionError, match="networks, n-gram models and mixtures"):
        export(door.mix([counts], cache=True), html=page)
    with pytest.raises(OptionError, match="name what to write"):
        export(counts)
    with pytest.raises(OptionError, match="one model or two"):
        export([counts] * 3, html=page)
    with pytest.raises(OptionError, match="holds one network"):
        export(counts, onnx=tmp_path / "counts.onnx")
    with pytest.raises(OptionError, match=r"charlm\.load"):
        export("checkpoints/x", html=page)  # type: ignore[arg-type]
    assert not page.exists()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    "shape",
    [{}, {"embedding": 12, "tied": True, "bias": False}, {"grams": 50, "gram_order": 4}, {"grams": 9, "gram_order": 2}],
    ids=["one-hot", "embedding", "grams", "pairs"],
)
def test_an_onnx_file_gives_the_same_numbers(tmp_path: Path, cell: str, layers: int, shape: dict[str, Any]) -> None:
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install 'charlm-toolkit[dev]'"
    )
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'charlm-toolkit[onnx]'")
    model = network(model=cell, layers=layers, **shape)
    file = export(model, onnx=tmp_path / "net.onnx").onnx
    session = runtime.InferenceSession(str(file))
    draw = torch.Generator().manual_seed(3)
    for lanes in (1, 4):
        state = model.initial_state(lanes)
        given = {name: tensor.numpy() for name, tensor in state.items()}
        for steps in (1, 7, 3):  # the state is carried from call to call
            ids = torch.randint(-1, len(TEXT.vocab), (steps, lanes), generator=draw)  # -1: unknown
            logp, state = model.logprobs(ids, state)
            found, *after = session.run(None, {"ids": ids.numpy(), **given})
            given = dict(zip(given, after, strict=True))
            np.testing.assert_allclose(found, logp.detach().numpy(), atol=1e-5)
            for name, tensor in state.items():
                np.testing.assert_allclose(given[name], tensor.detach().numpy(), atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["characters"]) == list(TEXT.vocab.characters)
    assert int(facts["start"]) == model.start


@pytest.mark.parametrize(
    "shape",
    [
        {"look_back": 9},
        {"look_back": 150, "layers": 2},
        {"model": "lstm", "look_back": 40, "embedding": 12, "grams": 50, "gram_order": 3},
    ],
    ids=["9", "150", "grams"],
)
def test_an_onnx_file_looks_back(tmp_path: Path, shape: dict[str, Any]) -> None:
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install 'charlm-toolkit[dev]'"
    )
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'charlm-toolkit[onnx]'")
    model = network(**shape)
    session = runtime.InferenceSession(str(export(model, onnx=tmp_path / "net.onnx").onnx))
    outputs = [node.name for node in session.get_outputs()]
    draw = torch.Generator().manual_seed(3)
    for lanes in (1, 3):
        begin = {name: tensor.numpy() for name, tensor in model.initial_state(lanes).items()}
        assert set(begin) == {node.name for node in session.get_inputs()} - {"ids"}
        ids = torch.randint(-1, 6, (600, lanes), generator=draw)  # few symbols come back often; -1: unknown
        logp, state = model.logprobs(ids, model.initial_state(lanes))
        for lengths in ([600], [1, 1, 5, 128, 129, 300, 36]):  # whole and in pieces; a block has 128 steps
            given, found = begin, []
            for piece in ids.split(lengths):
                run = dict(zip(outputs, session.run(None, {"ids": piece.numpy(), **given}), strict=True))
                given = {name: run[f"{name}_next"] for name in begin}
                found.append(run["logp"])
            np.testing.assert_allclose(np.concatenate(found), logp.detach().numpy(), atol=2e-5)
            for name, tensor in state.items():
                np.testing.assert_allclose(given[name], tensor.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(("places", "least"), [(6, 0), (7, 10), (20, 20), (150, 80), (600, 200)])
def test_an_onnx_file_does_not_look_back_in_a_loop(
    tmp_path: Path, places: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole and in pieces, with unknown characters in loops too; at the end a step that continues one."""
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install 'charlm-toolkit[dev]'"
    )
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'charlm-toolkit[onnx]'")
    model = network(look_back=places)
    session = runtime.InferenceSession(str(export(model, onnx=tmp_path / "net.onnx").onnx))
    outputs = [node.name for node in session.get_outputs()]
    begin = {name: tensor.numpy() for name, tensor in model.initial_state(2).items()}
    ids = torch.stack([looping(n, len(TEXT.vocab)) for n in range(2)], 1)
    ids[[60, 61, 333], 1] = -1
    expected = model.logprobs(ids, model.initial_state(2))[0].detach().numpy()
    for lengths in ([len(ids)], [1, 1, 5, 128, 129, 300, len(ids) - 565, 1]):
        given, found = begin, []
        for piece in ids.split(lengths):
            run = dict(zip(outputs, session.run(None, {"ids": piece.numpy(), **given}), strict=True))
            given = {name: run[f"{name}_next"] for name in begin}
            found.append(run["logp"])
        np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-5)
    monkeypatch.setattr(look_back, "repeating", lambda ids_BS, *_: torch.zeros_like(ids_BS, dtype=torch.bool))
    monkeypatch.setattr(compiled, "fits", lambda tensor: False)
    seen = model.logprobs(ids, model.initial_state(2))[0].detach().numpy()
    different = int((abs(seen - expected).max(2) > 1e-2).any(1).sum())
    assert different >= least, "the rule changed little"
    assert places > 6 or different == 0, "six places are too few for it"


def test_onnx_lacks_a_projection(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="projection"):
        export(network(model="lstm", projection=5), onnx=tmp_path / "net.onnx")

"""What the tests of kernels share."""

from __future__ import annotations

import pytest

from charlm.nn.kernels import compiled


@pytest.fixture(params=compiled.TARGETS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled kernels of one target are used."""
    there = {found.target: found for found in compiled.libraries()}
    if request.param not in there:
        pytest.skip(f"this machine does not run {request.param}, or it was not compiled")
    monkeypatch.setattr(compiled, "library", lambda: there[request.param])
    return str(request.param)

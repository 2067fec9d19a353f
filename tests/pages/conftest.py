"""What the tests of pages share."""

from collections.abc import Iterator

import pytest
from browser import Browser, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        with chromium() as found:
            yield found

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_fsync() -> Iterator[None]:
    """The runs that are audited here need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _descriptor: None)
        yield

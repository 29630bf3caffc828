"""A key behind a socket; tests/client_app/test_signer.py has both ends."""

import socket
import threading
from pathlib import Path

import pytest

from client_app.remote_key import RemoteKey
from core.errors import FormatError, IntegrityError, UsageError
from tests import federation as f


def answering(path: Path, line: bytes) -> threading.Thread:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def answer() -> None:
        with listening, listening.accept()[0] as client:
            client.recv(2**20)
            client.sendall(line)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        (b'{"refused":"not this"}\n', IntegrityError, "the signer refuses: not this"),
        (b"", UsageError, "expected an answer"),
        (b"no json\n", UsageError, "expected an answer"),
        (b'{"address":"0x12"}\n', FormatError, "address"),
    ],
)
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, line: bytes, error: type[Exception], says: str) -> None:
    thread = answering(tmp_path / "sock", line)
    with pytest.raises(error, match=says):
        _ = RemoteKey(tmp_path / "sock").address
    thread.join()


def test_an_address_is_asked_once(tmp_path: Path) -> None:
    thread = answering(tmp_path / "sock", f'{{"address":"{f.COORDINATOR.address}"}}\n'.encode())
    key = RemoteKey(tmp_path / "sock")
    assert key.address == key.address == f.COORDINATOR.address
    thread.join()

"""Certificates are taken by OpenSSL for the names that they have, and keys are their user's alone."""

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from console.deployments.certificates import authority, names_of, server, write_secret

HOSTS = ("localhost", "foedus.example", "127.0.0.1", "::1")


def handshake(folder: Path, name: str) -> None:
    """A TLS handshake between both sides."""
    by, here = socket.socketpair()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "server.pem", folder / "server.key")

    def serve() -> None:
        try:
            serving.wrap_socket(by, server_side=True).close()
        except (ssl.SSLError, OSError):
            by.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with here:
            ssl.create_default_context(cafile=folder / "ca.pem").wrap_socket(here, server_hostname=name).close()
    finally:
        thread.join()


def test_a_server_s_certificate_is_taken_for_its_names_and_no_others(tmp_path: Path) -> None:
    ca = authority("CA of clinics")
    ca.write(tmp_path / "ca.pem", tmp_path / "ca.key")
    made = server("localhost", HOSTS, ca)
    made.write(tmp_path / "server.pem", tmp_path / "server.key")
    assert names_of(made.certificate) == set(HOSTS)
    for name in ("foedus.example", "127.0.0.1"):
        handshake(tmp_path, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "other.example")
    for key in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / key).stat().st_mode) == 0o600


def test_another_ca_is_not_believed(tmp_path: Path) -> None:
    authority("CA of clinics").write(tmp_path / "ca.pem", tmp_path / "ca.key")
    server("localhost", HOSTS, authority("CA of clinics")).write(tmp_path / "server.pem", tmp_path / "server.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "localhost")


def test_a_secret_in_place_of_another_stays_secret(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"first, and longer")
    write_secret(tmp_path / "key", b"second")
    assert ((tmp_path / "key").read_bytes(), stat.S_IMODE((tmp_path / "key").stat().st_mode)) == (b"second", 0o600)
    assert names_of(authority("CA").certificate) == set()

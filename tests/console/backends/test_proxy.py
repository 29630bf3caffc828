"""A real nginx in front of a server that says what reached it: Fleet and health, and nothing else."""

import http.client
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from console.backends.children import Children, free_port
from console.backends.proxy import LARGEST_BODY_MIB, Nginx, own_certificate, write_configuration
from console.deployments.certificates import authority
from core.deployment import CoordinatorSettings
from core.errors import UsageError
from tests.nginx import needs_nginx


class Behind(BaseHTTPRequestHandler):
    """Answers with the path that it was asked for."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = f"{self.path} {len(body)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815 - http.server's name

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorSettings:
    folder = tmp_path_factory.mktemp('the \\ "clinics"; #1 {')
    certificate, key = own_certificate(folder / "public")
    shutil.copy(certificate, folder / "server.pem")
    shutil.copy(key, folder / "server.key")
    (folder / "coordinator.toml").write_text(
        f'certificate = "server.pem"\nprivate-key = "server.key"\nlisten = "127.0.0.1:{free_port()}"\n'
        f"control-port = {free_port()}\n"
    )
    return CoordinatorSettings.read(folder)


@pytest.fixture(scope="module")
def door(settings: CoordinatorSettings) -> Iterator[tuple[Nginx, int]]:
    certificate, key = own_certificate(settings.state)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", settings.control_port), Behind)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Children() as children:
        door = Nginx(children, settings)
        yield door, wait_for(int(settings.listen.rpartition(":")[2]))
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def port(door: tuple[Nginx, int]) -> int:
    return door[1]


def wait_for(port: int) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if ask(port, "/health") == (200, "/health 0"):
                return port
        except OSError:
            time.sleep(0.05)
    pytest.fail("nginx does not answer")


def ask(port: int, path: str, body: bytes = b"") -> tuple[int, str]:
    """The status, and the text of a success; the path goes out as it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    try:
        connection.putrequest("POST" if body else "GET", path, skip_accept_encoding=True)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer.status, answer.read().decode() if answer.status == 200 else ""
    finally:
        connection.close()


@needs_nginx
def test_the_fleet_api_and_the_health_check_pass(port: int) -> None:
    assert ask(port, "/v1/fleet/pull-messages", b"x" * 100) == (200, "/v1/fleet/pull-messages 100")
    assert ask(port, "/health") == (200, "/health 0")


@needs_nginx
@pytest.mark.parametrize(
    "path",
    [
        "/", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task",
        "/v1/fleet", "/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol/start-run", "//v1/control/start-run", "/V1/FLEET/x", "/health/x",
        "/v1/fleet/..%2f..%2fv1/control/start-run", "/v1/fleet%2f../control/start-run",
    ],
)  # fmt: skip
def test_whatever_is_spelt_to_reach_control_or_runtime_does_not(port: int, path: str) -> None:
    status, reached = ask(port, path, b"x")
    assert status in (301, 400, 404), reached
    assert not reached


def shown(port: int) -> str:
    """The certificate that whoever connects now is shown."""
    return ssl.get_server_certificate(("127.0.0.1", port))


@needs_nginx
def test_a_certificate_that_is_renewed_is_shown_from_then_on_and_one_that_is_none_is_not(
    door: tuple[Nginx, int], settings: CoordinatorSettings
) -> None:
    nginx, port = door
    before = shown(port)
    assert not nginx.follow_certificate()
    settings.certificate.write_text("no certificate")
    told = nginx.follow_certificate()
    assert told.startswith("nginx serves the certificate before: ")
    assert "cannot load certificate" in told
    assert shown(port) == before
    authority("renewed", ("localhost",)).write(settings.certificate, settings.private_key)
    assert nginx.follow_certificate() == "nginx serves the new certificate"
    assert shown(wait_for(port)).split() == settings.certificate.read_text().split() != before.split()


@needs_nginx
def test_a_body_larger_than_anything_of_an_update_is_refused(port: int) -> None:
    largest = LARGEST_BODY_MIB * 2**20
    assert ask(port, "/v1/fleet/push-object", bytes(largest)) == (200, f"/v1/fleet/push-object {largest}")
    # nginx closes while the client still sends, which a client may see as a broken pipe.
    with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
        assert ask(port, "/v1/fleet/push-object", bytes(largest + 1))[0] == 413


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = CoordinatorSettings(tmp_path, tmp_path / "none.pem", tmp_path / "none.key", state=tmp_path / "state")
    with pytest.raises(UsageError, match=f"certificate: expected a file, got {tmp_path}/none.pem"):
        write_configuration(settings)


def test_the_loopbacks_own_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    certificate, key = own_certificate(tmp_path)
    assert own_certificate(tmp_path) == (certificate, key)
    assert key.stat().st_mode & 0o777 == 0o600

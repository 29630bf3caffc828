"""A console behind a reverse proxy that knows who asks: nginx, with the configuration of the guide."""

import base64
import http.client
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from console.backends.children import free_port
from console.deployments import certificates
from console.web.erasing import ErasureProcesses
from console.web.proxy import Proxy, ProxySettings
from core.erasures import OpenedRequest
from core.errors import ConfigError
from core.storage.run_folder import RunFolder
from tests.commands import PATIENCE_SECONDS, World
from tests.console.web.served import Answered, Served, serving
from tests.nginx import needs_nginx

pytestmark = pytest.mark.chain

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "console.md"
MAIN = """
user root; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {server}
}}
"""


@dataclass(frozen=True)
class Proxied:
    """A server, and nginx before it."""

    port: int
    served: Served
    secret: str

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def dialogue(self) -> str:
        return f"/runs/{self.served.run}/erase?organisation=medical&method=remove"

    def ask(self, user: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        """One request through nginx, as a user; "" for nobody."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=PATIENCE_SECONDS)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if user:
            named["Authorization"] = "Basic " + base64.b64encode(f"{user}:word of {user}".encode()).decode()
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answered(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()

    def erase(self, user: str, **headers: str) -> Answered:
        fields = urlencode({"organisation": "medical", "method": "remove", "typed": "medical"}).encode()
        path, _, _ = self.dialogue.partition("?")
        return self.ask(user, "POST", path, fields, content_type="application/x-www-form-urlencoded", **headers)


@pytest.fixture(scope="module")
def proxied(finished: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder, port = tmp_path_factory.mktemp("proxied"), free_port()
    (folder / "proxy.toml").write_text(
        f'url = "https://127.0.0.1:{port}"\nsecret-file = "proxy.secret"\nmay-erase = ["officer"]\n', encoding="utf-8"
    )
    with serving(finished.state, proxy=Proxy(ProxySettings.read_file(folder / "proxy.toml"))) as server:
        secret = (folder / "proxy.secret").read_text(encoding="utf-8").strip()
        configured = configuration(folder, port, server.port, secret)
        nginx = subprocess.Popen(["nginx", "-p", folder, "-c", configured])
        try:
            found = Proxied(port, server, secret)
            wait_for(found, nginx)
            yield found
        finally:
            nginx.terminate()
            nginx.wait()


def configuration(folder: Path, port: int, behind: int, secret: str) -> Path:
    """The guide's, with a port, a certificate, users and a secret of this test."""
    (block,) = re.findall(r"```nginx\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    certificates.authority("test", ["127.0.0.1"]).write(folder / "models.pem", folder / "models.key")
    users = "".join(f"{name}:{{PLAIN}}word of {name}\n" for name in ("officer", "reader"))
    (folder / "models.users").write_text(users, encoding="utf-8")
    (folder / "foedus-secret.conf").write_text(f"proxy_set_header X-Foedus-Proxy {secret};\n", encoding="utf-8")
    server = block.replace("listen 443", f"listen 127.0.0.1:{port}").replace("/etc/nginx/", f"{folder}/")
    path = folder / "nginx.conf"
    path.write_text(MAIN.format(folder=folder, server=server.replace(":8750", f":{behind}")), encoding="utf-8")
    return path


def wait_for(proxied: Proxied, nginx: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and nginx.poll() is None:
        with suppress(OSError):
            if proxied.ask("", "GET", "/").status == 401:
                return
        time.sleep(0.05)
    pytest.fail("nginx does not answer")


@needs_nginx
def test_whom_the_proxy_knows_sees_pages_and_asks_the_endpoint(proxied: Proxied) -> None:
    assert "Runs" in proxied.ask("reader", "GET", "/").text
    assert proxied.served.run in proxied.ask("reader", "GET", "/v1/models").text
    assert proxied.ask("", "GET", "/v1/models").status == 401


@needs_nginx
def test_nobody_comes_past_the_proxy(proxied: Proxied) -> None:
    host = f"127.0.0.1:{proxied.port}"
    for headers in (
        {},
        {"X_Remote_User": "officer"},
        {"X_Remote_User": "officer", "X_Foedus_Proxy": "x" * 32},
        {"X_Remote_User": "officer", "X_Foedus_Proxy": ""},
        {"X_Remote_User": "", "X_Foedus_Proxy": proxied.secret},
        {"X_Foedus_Proxy": proxied.secret},
    ):
        for path in ("/", "/v1/models", "/style.css"):
            assert proxied.served.ask("GET", path, host=host, **headers).status == 403, (headers, path)
    known = {"X_Remote_User": "officer", "X_Foedus_Proxy": proxied.secret}
    assert proxied.served.ask("GET", "/", host=host, **known).status == 200
    assert proxied.served.ask("GET", "/", **known).status == 403, "its own address is not the proxy's"


@needs_nginx
def test_a_client_that_names_itself_is_still_who_the_proxy_says(proxied: Proxied) -> None:
    found = proxied.ask("reader", "GET", proxied.dialogue, x_remote_user="officer", x_foedus_proxy="anything")
    assert "reader may not erase" in found.text


def test_two_names_in_one_request_are_nobody(tmp_path: Path) -> None:
    proxy = Proxy(ProxySettings(tmp_path, "https://models.example", tmp_path / "secret"))
    secret = (b"x-foedus-proxy", (tmp_path / "secret").read_bytes().strip())
    named = (b"x-remote-user", b"officer")
    assert proxy.user([secret, named]) == "officer"
    assert proxy.user([secret, named, (b"x-remote-user", b"reader")]) == ""
    assert proxy.user([secret, secret, named]) == ""
    assert proxy.user([secret, (b"x-remote-user", b"o" * 300)]) == ""


@needs_nginx
def test_who_may_erase_needs_no_token_and_is_named_in_the_log(
    proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, str, str, str]] = []

    def start(_: ErasureProcesses, run: RunFolder, opened: OpenedRequest, user: str) -> None:
        asked = opened.request.value
        started.append((run.name, run.genesis.names[asked.organisation], asked.method, user))

    monkeypatch.setattr(ErasureProcesses, "start", start)
    assert "Asked for by officer" in proxied.ask("officer", "GET", proxied.dialogue).text
    assert proxied.erase("officer", origin=proxied.origin).status == 303
    assert started == [(proxied.served.run, "medical", "remove", "officer")]
    for user, headers, status in (
        ("reader", {"origin": proxied.origin}, 400),
        ("officer", {}, 400),  # a form that does not say where it comes from
        ("officer", {"origin": "https://evil.example"}, 403),
        ("officer", {"origin": "null"}, 403),
    ):
        assert proxied.erase(user, **headers).status == status, (user, headers)
    assert len(started) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('url = "models.example"\nsecret-file = "s"', "url: expected https://HOST"),
        ('url = "https://models.example/console"\nsecret-file = "s"', "url: expected https://HOST"),
        ('url = "https://models.example"', "secret-file"),
        ('url = "https://models.example"\nsecret-file = "s"\nheader = "a b"', "header: expected the name"),
        ('url = "https://models.example"\nsecret-file = "s"\nheader = "X-Foedus-Proxy"', "header: expected the name"),
        ('url = "https://models.example"\nsecret-file = "s"\nadmins = []', "admins"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        ProxySettings.read_file(tmp_path / "proxy.toml")

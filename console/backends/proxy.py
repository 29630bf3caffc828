"""nginx in front of a SuperLink: what of it the network can reach.

Flower serves three APIs on one port. Fleet is for the nodes; Control starts runs and admits nodes, Runtime serves the
apps, and neither asks who calls. So only Fleet and the health check are let through, by their path; nginx itself says
which version this is, and answers everything else with 404. Both sides speak TLS: a SuperLink takes node keys over
nothing else.
"""

import os
import pwd
import subprocess
from importlib.metadata import version
from pathlib import Path

from console.backends.children import Children, Kept
from console.deployments.certificates import authority
from core.deployment import CoordinatorSettings
from core.errors import UsageError
from core.escape import one_line

LARGEST_BODY_MIB = 8
"""Flower sends arrays in pieces of at most 5 MiB, each in a request of its own: nothing of an update is larger."""
_TEMPLATE = """\
# Written by `foedus coordinator` at every start.
{user}daemon off;
# One process: workers of a master that was killed would go on holding the port.
master_process off;
pid "{state}/nginx/pid";
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path "{state}/nginx/body";
    proxy_temp_path "{state}/nginx/proxy";
    fastcgi_temp_path "{state}/nginx/fastcgi";
    uwsgi_temp_path "{state}/nginx/uwsgi";
    scgi_temp_path "{state}/nginx/scgi";
    client_max_body_size {body}m;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    proxy_read_timeout 300s;
    proxy_ssl_trusted_certificate "{state}/link/certificate.pem";
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    upstream superlink {{
        server 127.0.0.1:{port};
        keepalive 16;
    }}
    server {{
        listen {listen} ssl;
        ssl_certificate "{certificate}";
        ssl_certificate_key "{private_key}";
        ssl_protocols TLSv1.2 TLSv1.3;
        # With a path behind the name, nginx passes on the path that it looked at, and not one that means another.
        location /v1/fleet/ {{ proxy_pass https://superlink/v1/fleet/; }}
        location = /health {{ proxy_pass https://superlink/health; }}
        # For `foedus doctor`: the version, and in nginx's own Date header the clock.
        location = /foedus {{ default_type application/json; return 200 '{{"product": "{product}"}}'; }}
        location / {{ return 404; }}
    }}
}}
"""


class Nginx(Kept):
    """A running nginx, which serves the certificate that lies in its settings' file now."""

    def __init__(self, children: Children, settings: CoordinatorSettings) -> None:
        """Raises as `write_configuration` does."""
        configuration = write_configuration(settings)
        self._files = settings.certificate, settings.private_key
        self._serving = [settings.nginx, "-p", str(configuration.parent), "-c", str(configuration)]
        super().__init__(children, self._serving, {})

    def start(self) -> None:
        """See `Kept.start`."""
        self._served = self._versions()
        super().start()

    def follow_certificate(self) -> str:
        """Start another once the certificate was renewed; returns "" where it was not, else what became of it.

        With a certificate that is none the one before is served on. Open connections end, and are opened again.
        """
        if (versions := self._versions()) == self._served:
            return ""
        self._served = versions
        # In one process nginx does not take up a new certificate on SIGHUP.
        checked = subprocess.run([*self._serving, "-t"], capture_output=True, text=True, check=False)  # noqa: S603 - ours
        if checked.returncode:
            return f"nginx serves the certificate before: {one_line(checked.stderr)}"
        self.process.terminate()
        self.process.wait()
        self.start()
        return "nginx serves the new certificate"

    def _versions(self) -> list[tuple[int, int]]:
        """What tells one version of the files from another, those that are there."""
        found = (path.stat() for path in self._files if path.exists())
        return [(status.st_ino, status.st_mtime_ns) for status in found]


def write_configuration(settings: CoordinatorSettings) -> Path:
    """Write nginx's configuration, and return its path; raises UsageError for a certificate that is not there."""
    for name, path in (("certificate", settings.certificate), ("private-key", settings.private_key)):
        if not path.is_file():
            raise UsageError(f"{name}: expected a file, got {path}")
    folder = settings.state / "nginx"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = _TEMPLATE.format(
        # As root, nginx would otherwise work as a user that cannot enter the state folder.
        user=f"user {pwd.getpwuid(0).pw_name};\n" if os.getuid() == 0 else "",
        state=_quotable(settings.state),
        body=LARGEST_BODY_MIB,
        port=settings.control_port,
        listen=settings.listen,
        certificate=_quotable(settings.certificate),
        private_key=_quotable(settings.private_key),
        product=f"foedus {version('foedus')}",
    )
    path = folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


def _quotable(path: Path) -> str:
    """A path as it stands between quotes in nginx's settings."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def own_certificate(state: Path) -> tuple[Path, Path]:
    """The certificate and key of the SuperLink on the loopback, which nobody but nginx and this machine sees."""
    certificate, key = state / "link" / "certificate.pem", state / "link" / "key.pem"
    if certificate.exists():
        return certificate, key
    certificate.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority("localhost", ("localhost", "127.0.0.1")).write(certificate, key)
    return certificate, key

"""nginx in front of a SuperLink: what of it the network can reach.

Flower serves three APIs on one port. Fleet is for the nodes; Control starts runs and admits nodes, Runtime serves the
apps, and neither asks who calls. So only Fleet and the health check are let through, by their path; nginx itself says
which version this is, and answers everything else with 404. Both sides speak TLS: a SuperLink takes node keys over
nothing else.
"""

import os
import pwd
from importlib.metadata import version
from pathlib import Path

from console.deployments.certificates import authority
from core.deployment import CoordinatorSettings
from core.errors import UsageError

LARGEST_BODY_MIB = 8
"""Flower sends arrays in pieces of at most 5 MiB, each in a request of its own: nothing of an update is larger."""
_TEMPLATE = """\
# Written by `foedus coordinator` at every start.
{user}daemon off;
# One process: workers of a master that was killed would go on holding the port.
master_process off;
pid {state}/nginx/pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path {state}/nginx/body;
    proxy_temp_path {state}/nginx/proxy;
    fastcgi_temp_path {state}/nginx/fastcgi;
    uwsgi_temp_path {state}/nginx/uwsgi;
    scgi_temp_path {state}/nginx/scgi;
    client_max_body_size {body}m;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    proxy_read_timeout 300s;
    proxy_ssl_trusted_certificate {state}/link/certificate.pem;
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    upstream superlink {{
        server 127.0.0.1:{port};
        keepalive 16;
    }}
    server {{
        listen {listen} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {private_key};
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
        state=settings.state,
        body=LARGEST_BODY_MIB,
        port=settings.control_port,
        listen=settings.listen,
        certificate=settings.certificate,
        private_key=settings.private_key,
        product=f"foedus {version('foedus')}",
    )
    path = folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


def own_certificate(state: Path) -> tuple[Path, Path]:
    """The certificate and key of the SuperLink on the loopback, which nobody but nginx and this machine sees."""
    certificate, key = state / "link" / "certificate.pem", state / "link" / "key.pem"
    if certificate.exists():
        return certificate, key
    certificate.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority("localhost", ("localhost", "127.0.0.1")).write(certificate, key)
    return certificate, key

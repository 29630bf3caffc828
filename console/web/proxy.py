"""A reverse proxy that knows who asks: what its file says, and whom it names.

    # proxy.toml
    url = "https://models.clinic.example"    # how people reach it: other hosts and origins are refused
    header = "X-Remote-User"                 # in which the proxy names who asks
    secret-file = "proxy.secret"             # what it sends as X-Foedus-Proxy; made if missing
    may-erase = ["dpo@clinic.example"]       # who may erase, without the server's token

A request without the secret is refused, whatever its other headers say: others on this machine reach the port, too.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from console.web.security import Headers, Token
from core.deployment import FolderSettings
from core.errors import ConfigError

SECRET_HEADER = b"x-foedus-proxy"
_LONGEST_NAME = 254


@dataclass(frozen=True)
class ProxySettings(FolderSettings):
    """proxy.toml: the reverse proxy before a console."""

    file = "proxy.toml"

    url: str
    """How people reach it: https://HOST[:PORT]."""
    secret_file: Path
    """The file of what the proxy sends as X-Foedus-Proxy; made if missing."""
    header: str = "X-Remote-User"
    """The header in which the proxy names who asks."""
    may_erase: tuple[str, ...] = ()
    """Whom the proxy names that may erase."""

    def __post_init__(self) -> None:
        """Raise ConfigError for an address that is none, or a header that cannot be one."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
            raise ConfigError(f"url: expected https://HOST or https://HOST:PORT, got {self.url!r}")
        if not self.header.replace("-", "").isalnum() or self.header.lower().encode() == SECRET_HEADER:
            raise ConfigError(f"header: expected the name of a header, got {self.header!r}")


class Proxy:
    """The reverse proxy before a server, with the secret by which its requests are known."""

    def __init__(self, settings: ProxySettings) -> None:
        """Read the secret, or make it; raises UsageError as `Token` does."""
        self.settings, self._secret = settings, Token(settings.secret_file)
        self._header = settings.header.lower().encode()

    @property
    def origin(self) -> str:
        """The Origin of its forms."""
        return self.settings.url.rstrip("/").lower()

    def user(self, headers: Headers) -> str:
        """Whom the proxy names; "" for what did not come from it, or for nobody."""
        # latin-1 maps every byte: what is no ASCII fits no name in the file.
        given = [(name, value.decode("latin-1").strip()) for name, value in headers]
        secrets = [value for name, value in given if name == SECRET_HEADER]
        users = [value for name, value in given if name == self._header]
        # A client's own header beside the proxy's would name somebody else.
        if len(secrets) != 1 or len(users) != 1 or not self._secret.allows(secrets[0]):
            return ""
        return users[0] if len(users[0]) <= _LONGEST_NAME else ""

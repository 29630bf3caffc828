"""Certificates of a deployment: a CA of the coordinator's own, a server's under it, and one that signs itself."""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.errors import UsageError

SERVER_DAYS = 825
"""The longest that browsers and libraries take a server's certificate for."""
CA_DAYS = 3650
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Certified:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, certificate: Path, key: Path) -> None:
        """Write both as PEM, the key with mode 0600."""
        plain = self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_secret(key, plain)
        certificate.write_bytes(self.certificate.public_bytes(_PEM))  # last: it says that both are there


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that its user alone can ever read, in place of one that is there."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def authority(name: str, hosts: Sequence[str] = ()) -> Certified:
    """A CA; with `hosts` it is a server's certificate as well, which signs itself."""
    return _certified(name, CA_DAYS, hosts, None)


def server(name: str, hosts: Sequence[str], by: Certified) -> Certified:
    """The certificate of a server with these names and IP addresses."""
    return _certified(name, SERVER_DAYS, hosts, by)


def check_own(certificate: Path, key: Path, ca: Path) -> None:
    """Raise UsageError unless these are PEM files of a certificate, of its private key, and of a CA."""
    try:
        shown = x509.load_pem_x509_certificate(certificate.read_bytes())
        secret: Any = serialization.load_pem_private_key(key.read_bytes(), None)
        x509.load_pem_x509_certificate(ca.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"certificate, private-key, ca: expected PEM without a passphrase, got {error}") from error
    if shown.public_key() != secret.public_key():
        raise UsageError(f"private-key: expected the key of {certificate}, got another in {key}")


def names_of(certificate: x509.Certificate) -> set[str]:
    """The names and IP addresses that a server's certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return {*found.get_values_for_type(x509.DNSName), *addresses}


def _certified(name: str, days: int, hosts: Sequence[str], by: Certified | None) -> Certified:
    key, subject = ec.generate_private_key(ec.SECP256R1()), _name(name)
    signing = by.key if by else key
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None if by else 0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if hosts:
        made = made.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return Certified(made.sign(signing, hashes.SHA256()), key)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)

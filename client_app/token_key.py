"""A key in a hardware token, behind PKCS#11: it can be used, and by nobody be read.

The token holds a key pair on secp256k1, and a generic secret key of the same label for its nonces and the salts of
requests to erase records, since it computes no HMAC under the former. Both are made with the token's own tools.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from core.canonical import Address, Digest, domain, raw
from core.errors import UsageError
from core.keys import Domain, PublicKey, Signature, Struct, address_of, hash_of, public_key, spelt


class TokenKey:
    """An organisation's key in a token; a `core.signed.SigningKey`."""

    derived = False

    def __init__(self, module: Path, token: str, label: str, pin: str) -> None:
        """Open a session with the token; raises UsageError when it has no such keys, or does not take the PIN."""
        import pkcs11  # noqa: PLC0415 - only those with a token need it

        self._pkcs11 = pkcs11
        try:
            self._session: Any = pkcs11.lib(str(module)).get_token(token_label=token).open(user_pin=pin)
            kinds = pkcs11.ObjectClass
            self._private, self._public, self._secret = (
                self._session.get_key(object_class=kind, label=label)
                for kind in (kinds.PRIVATE_KEY, kinds.PUBLIC_KEY, kinds.SECRET_KEY)
            )
        except (pkcs11.PKCS11Error, RuntimeError) as error:
            why = str(error) or type(error).__name__
            raise UsageError(f"token {token!r}: expected a key pair and a secret key {label!r}, got {why}") from error

    @cached_property
    def public(self) -> PublicKey:
        """The public key, for whom something may be sealed; raises FormatError for another curve."""
        # A DER octet string around an uncompressed point: 04 41, then 04 ‖ x ‖ y.
        point = self._public[self._pkcs11.Attribute.EC_POINT][-65:]
        return public_key(f"0x{2 + point[-1] % 2:02x}{point[1:33].hex()}")

    @property
    def address(self) -> Address:
        """The Ethereum address in EIP-55 form."""
        return address_of(self.public)

    def sign_statement(self, domain: Domain, statement: Struct) -> Signature:
        """Have the token sign a statement."""
        hashed = hash_of(domain, statement.struct, statement.struct_fields, statement.message())
        return spelt(self._private.sign(hashed, mechanism=self._pkcs11.Mechanism.ECDSA), hashed, self.public)

    def salt_for(self, nonce: Digest) -> bytes:
        """HMAC-SHA256 of a digest under the token's secret key."""
        return self._hmac("records-salt", nonce)

    def nonce_for(self, asked: Digest) -> bytes:
        """The same for a part of a federation's seed, which no salt tells."""
        return self._hmac("nonce-secret", asked)

    def _hmac(self, tag: str, value: Digest) -> bytes:
        found: bytes = self._secret.sign(domain(tag) + raw(value), mechanism=self._pkcs11.Mechanism.SHA256_HMAC)
        return found

"""An update leaves with the organisation's signature, and not before the witness remembers it."""

from types import SimpleNamespace
from typing import Any

import pytest

from client_app.signing import signed_reply
from core.errors import IntegrityError
from core.messages.training import Reply
from core.signed import Signed
from core.update import UpdateManifest
from tests import federation as f

GENESIS = f.genesis()
TASK: Any = SimpleNamespace(genesis=GENESIS)


class Witness:
    def __init__(self, *, full: bool = False) -> None:
        self.remembered: list[Signed[UpdateManifest]] = []
        self.full = full

    def sent(self, signed: Signed[UpdateManifest]) -> None:
        if self.full:
            raise IntegrityError("no room")
        self.remembered.append(signed)


class Host:
    key = f.key("medical")


def test_a_reply_holds_the_update_and_the_signed_manifest_that_was_remembered() -> None:
    witness: Any = Witness()
    update = f.update_of(GENESIS, "medical")
    host: Any = Host()
    got = Reply.from_content(signed_reply(f.manifest(GENESIS), update, host, witness, TASK))
    assert bytes(got.update) == update.to_bytes()
    assert witness.remembered == [got.signed]
    assert got.signed.verified(GENESIS) == f.manifest(GENESIS)


def test_what_cannot_be_remembered_is_not_sent() -> None:
    witness: Any = Witness(full=True)
    host: Any = Host()
    with pytest.raises(IntegrityError, match="no room"):
        signed_reply(f.manifest(GENESIS), f.update_of(GENESIS, "medical"), host, witness, TASK)

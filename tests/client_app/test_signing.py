"""An update leaves with the organisation's signature, and not before the witness remembers it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client_app.approvals import HeldUpdates
from client_app.signing import signed_reply
from core.errors import HeldError, IntegrityError
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


class Node:
    """A node whose policy holds what it is told to."""

    def __init__(self, folder: Path, *, holds: bool = False) -> None:
        self.folder, self.holds = folder, holds

    def held_updates(self, _host: Any, _genesis: Any) -> HeldUpdates:
        return HeldUpdates(self.folder)

    def check_approved(self, _host: Any, _manifest: Any) -> None:
        if self.holds:
            raise HeldError("held")


def test_a_reply_holds_the_update_and_the_signed_manifest_that_was_remembered(tmp_path: Path) -> None:
    witness: Any = Witness()
    update = f.update_of(GENESIS, "medical")
    host: Any = Host()
    node: Any = Node(tmp_path)
    got = Reply.from_content(signed_reply(f.manifest(GENESIS), update, host, witness, TASK, node))
    assert bytes(got.update) == update.to_bytes()
    assert witness.remembered == [got.signed]
    assert got.signed.verified(GENESIS) == f.manifest(GENESIS)


def test_what_cannot_be_remembered_is_not_sent(tmp_path: Path) -> None:
    witness: Any = Witness(full=True)
    host: Any = Host()
    node: Any = Node(tmp_path)
    with pytest.raises(IntegrityError, match="no room"):
        signed_reply(f.manifest(GENESIS), f.update_of(GENESIS, "medical"), host, witness, TASK, node)


def test_what_is_held_is_kept_and_neither_signed_nor_remembered_until_it_is_let_go(tmp_path: Path) -> None:
    witness: Any = Witness()
    update, manifest = f.update_of(GENESIS, "medical"), f.manifest(GENESIS)
    host: Any = Host()
    node: Any = Node(tmp_path, holds=True)
    with pytest.raises(HeldError):
        signed_reply(manifest, update, host, witness, TASK, node)
    assert not witness.remembered
    kept = HeldUpdates(tmp_path).of(manifest.key, manifest.parent)
    assert kept
    assert (kept[0], kept[1].digest) == (manifest, update.digest)
    node.holds = False
    assert Reply.from_content(signed_reply(*kept, host, witness, TASK, node)).signed.value == manifest
    assert not HeldUpdates(tmp_path).of(manifest.key, manifest.parent)

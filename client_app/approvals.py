"""Approvals: updates that wait until a person of their organisation has looked at them.

    approvals/ADDRESS.jsonl        what was held, released and refused, beside the key: the signer's, if there is one
    held/GENESIS/ADDRESS/L0000.*   a lane's update that is held, with its manifest, on the node

A manifest binds the update's bytes by their digest, and it is the manifest that is released: of another update, or of
the same for another round, nothing is signed. The coordinator is told that the update is held, and asks again; then the
node sends what it kept, and trains nothing anew.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.canonical import Digest, from_json, to_json
from core.errors import FormatError, HeldError, NotNowError, PolicyError, UsageError
from core.messages.training import Task
from core.round_key import RoundKey
from core.storage import jsonl
from core.storage.blobs import Folder, write
from core.update import UpdateManifest
from core.wire import Packed, Travelling

_MOST_A_ROUND = 100
"""Updates of one round that may be held: each trial of it makes one."""


class Approvals:
    """One organisation's memory of the updates that its people were to look at."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, manifest: UpdateManifest, approve: str) -> None:
        """Check that an update may be signed under a policy's `approve`.

        Raises HeldError while it waits, NotNowError where it was refused, PolicyError where a round has too many.
        """
        if approve == "never":
            return
        entries = jsonl.read(self._path)
        decided = {entry["manifest"]: entry["released"] for entry in entries if "released" in entry}
        if decided.get(manifest.digest):
            return
        if manifest.digest in decided:
            raise NotNowError("its organisation has looked at this update and keeps it")
        held = {found.digest: found for found in _held(entries)}
        # Of the federation's updates, any that was let go was looked at first.
        if approve == "first" and any(decided.get(d) for d, m in held.items() if m.genesis == manifest.genesis):
            return
        if manifest.digest not in held:
            if sum(other.key == manifest.key for other in held.values()) >= _MOST_A_ROUND:
                raise PolicyError(f"{manifest.key}: expected at most {_MOST_A_ROUND} updates to look at, got one more")
            jsonl.append(self._path, {"held": manifest.to_dict(), "at": jsonl.stamp()})
        raise HeldError("held for approval by a person of its organisation")

    def waiting(self) -> list[UpdateManifest]:
        """What is held and not decided: of each lane the newest, since the rounds before it are over."""
        entries = jsonl.read(self._path)
        decided = {entry["manifest"] for entry in entries if "released" in entry}
        newest = {(held.genesis, held.lane): held for held in _held(entries)}
        return [held for held in newest.values() if held.digest not in decided]

    def decide(self, manifest: Digest, *, released: bool) -> None:
        """Let a held update go, or keep it; raises UsageError for one that is not waiting."""
        if manifest not in (waiting := [held.digest for held in self.waiting()]):
            raise UsageError(f"expected an update that waits ({', '.join(waiting) or 'none'}), got {manifest}")
        jsonl.append(self._path, {"manifest": manifest, "released": released, "at": jsonl.stamp()})


class HeldUpdates:
    """The updates of one organisation in one federation that its node keeps while they are held, one a lane."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, manifest: UpdateManifest, update: Travelling) -> None:
        """Keep an update with its manifest, in the place of the lane's last one."""
        for name, data in (("update", b"".join(update.parts())), ("json", to_json(manifest.to_dict()))):
            write(self._path(manifest.lane, name), data)

    def of(self, key: RoundKey, parent: Digest) -> tuple[UpdateManifest, Packed] | None:
        """The update that was kept for a round, made from this parent; raises FormatError for a damaged one."""
        manifest = self._manifest(key.lane)
        if manifest is None or (manifest.key, manifest.parent) != (key, parent):
            return None
        return manifest, self.open(manifest)

    def open(self, manifest: UpdateManifest) -> Packed:
        """The bytes that are kept for a manifest; raises UsageError without them, FormatError for others."""
        try:
            update = Packed(self._path(manifest.lane, "update").read_bytes())
        except OSError as error:
            raise UsageError(
                f"update {manifest.update}: expected it in {self._folder}, got {error.strerror}"
            ) from error
        if update.digest != manifest.update:
            raise FormatError(f"held update: expected {manifest.update} as in its manifest, got {update.digest}")
        return update

    def drop(self, lane: int) -> None:
        """Forget what was kept of a lane; raises RunError when it cannot be removed."""
        for name in ("json", "update"):
            Folder(self._folder).remove(self._path(lane, name).name)

    def drop_after(self, lane: int, number: int, generation: int) -> None:
        """Forget what was kept of a lane in a generation before `generation`, for a later round than `number`.

        And what is not whole, of which nobody can say what it knows. Raises RunError.
        """
        with suppress(FormatError, UsageError):
            if (manifest := self._manifest(lane)) and (manifest.generation >= generation or manifest.round <= number):
                self.open(manifest)
                return
        self.drop(lane)

    def _manifest(self, lane: int) -> UpdateManifest | None:
        """The manifest that was kept of a lane; raises FormatError for a damaged one."""
        described = self._path(lane, "json")
        return UpdateManifest.from_dict(from_json(described.read_bytes())) if described.exists() else None

    def _path(self, lane: int, kind: str) -> Path:
        return self._folder / f"L{lane:04}.{kind}"


def place_of(task: Task) -> tuple[RoundKey, Digest]:
    """The round that a task is for, and what it grows from."""
    parent = task.parent.value.digest if task.parent else task.genesis.digest
    return RoundKey(task.genesis.digest, task.lane, task.generation, task.round), parent


def _held(entries: list[Any]) -> Iterator[UpdateManifest]:
    return (UpdateManifest.from_dict(entry["held"]) for entry in entries if "held" in entry)

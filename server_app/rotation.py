"""A key that is replaced behind a run's newest round: an organisation's, or the coordinator's own.

    sign      old and new key have signed; after a loss the administrator signs for the old one
    hand over where it is the coordinator's: the chains take transactions of the new key's account
    open      each lane's next generation grows from its head, as for members that join or leave

Nothing is run again, and nobody is asked. Whatever a crash has left out is done when it is repeated.
"""

from pathlib import Path

from core import keys
from core.canonical import from_json
from core.config import RunConfig
from core.errors import ConfigError, UsageError
from core.genesis import Genesis
from core.keys import Key
from core.membership import MembershipRecord
from core.rotations import Rotation
from core.signed import Signed
from core.storage.blobs import read
from core.storage.run_folder import RunFolder
from server_app.coordinator_key import coordinator_key
from server_app.membership import propose, signed_change

_LONGEST = 2**16


def replacing_key(config: RunConfig) -> Key:
    """The key that replaces another: the administrator's after a loss, else the one that is replaced.

    Raises ConfigError where the settings name neither.
    """
    if not (path := config.administrator_key or config.former_key):
        raise ConfigError("former-key: expected the file of the key that is replaced, or administrator-key, got none")
    return keys.read(Path(path))


def rotation_of(config: RunConfig, genesis: Genesis) -> Signed[Rotation]:
    """The rotation that the settings name: of an organisation the file that it signed, else of the coordinator's key.

    Raises UsageError or FormatError for a file that is none, ForgeryError for a signature that is missing.
    """
    if config.request:
        signed = read_rotation(Path(config.request))
        # After a loss the organisation signs with its new key alone.
        if config.administrator_key and len(signed.signatures) == 1:
            own = replacing_key(config).sign_statement(genesis.chain, signed.value)
            signed = Signed(signed.value, (own, *signed.signatures))
    else:
        new, owner = coordinator_key(config), genesis.coordinator
        repeated = (s for m in genesis.memberships for s in m.value.rotations if s.value.new == new.address)
        if found := next(repeated, None):
            return found
        by = replacing_key(config)
        rotation = Rotation(genesis.digest, owner, genesis.signing(owner), new.address, by.address)
        signed = rotation.sign(by, genesis.chain, new)
    signed.verified(genesis)
    return signed


def read_rotation(path: Path) -> Signed[Rotation]:
    """The rotation in a file; raises UsageError when it cannot be read, FormatError when it is none."""
    try:
        return Signed.parse(Rotation, from_json(read(path, _LONGEST)))
    except OSError as error:
        what = "a file of `foedus members sign-rotation`"
        raise UsageError(f"request {path}: expected {what}, got {error.strerror}") from error


def changes_of(run: RunFolder, key: Key, signed: Signed[Rotation]) -> list[Signed[MembershipRecord]]:
    """What replaces a key in each lane where it counts and is not replaced yet, signed and checked, not yet written.

    Raises ObjectionError where it does not hold, UsageError where a change of members was not carried out.
    """
    genesis, rotation = run.genesis, signed.value
    changes: list[Signed[MembershipRecord]] = []
    for lane in range(len(genesis.lanes)):
        written = [m.value.place[1] for m in genesis.memberships if m.value.place[0] == lane]
        newest = max((*written, *run.generations(lane)), default=0)
        counts = rotation.owner in (genesis.coordinator, *run.members(lane))
        if counts and genesis.signing(rotation.owner, (lane, newest)) != rotation.new:
            if newest not in (0, *run.generations(lane)):
                raise UsageError(f"run {run.name}: expected changes of members to be carried out, got one that is not")
            changes.append(signed_change(run, key, propose(run, lane), rotations=[signed], beside=changes))
    return changes

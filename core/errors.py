"""Every exception that Foedus raises on purpose.

    FoedusError                 what foedus commands turn into one line and an exit code
    ├── UsageError                bad input: exit 2
    │   ├── ConfigError           an unknown setting, a wrong type, a value out of range
    │   ├── DataError             a missing folder, a malformed record (file and line)
    │   ├── ModelError            a base model or adapter that cannot be used
    │   └── PrivacyError          a privacy budget that does not cover what is asked
    ├── FormatError               bytes that are not the canonical form they claim to be
    ├── IntegrityError            the thing checked does not hold: exit 1
    │   ├── ForgeryError          a signature that does not belong to its claimed signer
    │   ├── ObjectionError        what a coordinator sent does not hold; the text names nothing else
    │   │   ├── PolicyError       what a coordinator asks is more than the site's policy allows
    │   │   └── LostMemoryError   an organisation is shown what it signed, and remembers nothing
    │   └── DestroyedError        something stored whose key was destroyed, as an erasure does
    ├── NotNowError               a site takes no part at present; the text may travel
    │   ├── HeldError             an update waits for a person of its organisation
    │   └── UnknownGenesisError   a message names a genesis that this node has lost, or was never shown
    ├── LedgerError               a ledger refused or could not be asked: exit 1
    │   ├── LedgerUnreachableError   nothing answered; may be tried again
    │   └── LedgerConflictError      the ledger says no: wrong parent, round already committed, no role
    └── RunError                  a federation that failed: exit 1
        ├── RunLockedError        the run has another writer
        └── QuorumError           too few organisations took part, too often

A client's fault is not an exception: it is a rejection with its reason in the RoundRecord.
"""


class FoedusError(Exception):
    """Base of all exceptions of this project; ``str()`` is one line for the user."""

    exit_code = 1


class UsageError(FoedusError):
    """Bad input: `expected X, got Y`, then what to do."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, has the wrong type, or lies outside its range."""


class DataError(UsageError):
    """Training or validation data is missing, empty or malformed."""


class ModelError(UsageError):
    """A base model or adapter cannot be loaded or does not fit."""


class PrivacyError(UsageError):
    """A privacy budget does not cover what is asked of an organisation."""


class FormatError(FoedusError):
    """Bytes are not the canonical form they claim to be."""


class IntegrityError(FoedusError):
    """Something that was checked does not hold."""


class ForgeryError(IntegrityError):
    """A signature was not made by the key it claims."""


class ObjectionError(IntegrityError):
    """What a coordinator sent does not hold. Its text is about that alone, so it may travel back."""


class LostMemoryError(ObjectionError):
    """An organisation is shown what it has signed and does not remember: nothing that its coordinator did."""


class PolicyError(ObjectionError):
    """What a coordinator asks is more than an organisation's site policy allows."""


class DestroyedError(IntegrityError):
    """Something is stored, and its key was destroyed: nobody can read it again."""


class NotNowError(FoedusError):
    """A site takes no part in what was asked, and may another time. Its text is for the coordinator, too."""


class HeldError(NotNowError):
    """An update is held until a person of its organisation has looked at it."""


class UnknownGenesisError(NotNowError):
    """A message names a genesis by a digest that is not known here: it is to be sent whole."""


class LedgerError(FoedusError):
    """A ledger refused a request or could not be asked."""


class LedgerUnreachableError(LedgerError):
    """No ledger answered; the request may be repeated."""


class LedgerConflictError(LedgerError):
    """The ledger refuses: wrong parent, round already committed, or missing role."""


class RunError(FoedusError):
    """A federation failed."""


class RunLockedError(RunError):
    """Another process is writing this run."""


class QuorumError(RunError):
    """Fewer organisations than the quorum took part, more often than allowed."""

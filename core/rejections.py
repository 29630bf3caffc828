"""The reasons for which a reply does not count; a RoundRecord keeps them with the organisation and a detail."""

from enum import StrEnum


class Reason(StrEnum):
    """Why an update, a bid or a receipt was rejected."""

    REVOKED = "revoked"
    NOT_CONNECTED = "not-connected"
    NO_REPLY = "no-reply"
    BELOW_QUORUM = "below-quorum"
    CLIENT_ERROR = "client-error"
    ABSTAINED = "abstained"
    OBJECTED = "objected"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    FORGED_SIGNATURE = "forged-signature"
    WRONG_FEDERATION = "wrong-federation"
    WRONG_ROUND = "wrong-round"
    WRONG_PARENT = "wrong-parent"
    WRONG_WIRE = "wrong-wire"
    REPLAYED_NONCE = "replayed-nonce"
    INFLATED_EXAMPLES = "inflated-examples"
    BID_OUT_OF_RANGE = "bid-out-of-range"
    EPSILON_OUT_OF_RANGE = "epsilon-out-of-range"
    TOO_LARGE = "too-large"
    DIGEST_MISMATCH = "digest-mismatch"
    MISSING_TENSOR = "missing-tensor"
    EXTRA_TENSOR = "extra-tensor"
    WRONG_SHAPE = "wrong-shape"
    WRONG_DTYPE = "wrong-dtype"
    NOT_FINITE = "not-finite"
    NORM_ABOVE_BOUND = "norm-above-bound"

"""A genesis of one lane, for benchmarks that need signed messages but no federation."""

from collections.abc import Sequence

from core import keys, lora
from core.adapter import AdapterState
from core.aggregation import rank_of
from core.canonical import ZERO_DIGEST
from core.genesis import Base, Genesis, Participation, Training
from core.keys import Domain, Key
from core.names import organisation_name
from core.update import Organisation

CHAIN = Domain(1, keys.derive(0, "contract").address)


def make_genesis(members: Sequence[Key], fresh: AdapterState) -> Genesis:
    """One lane of these members under frozen-a; the first of them coordinates."""
    # Every organisation registers as many examples: weights are no part of what is measured.
    organisations = tuple(
        Organisation(key.address, organisation_name(f"organisation {i}"), 1000) for i, key in enumerate(members)
    )
    return Genesis(
        run="benchmark",
        salt="00" * 32,
        coordinator=members[0].address,
        chain=CHAIN,
        private=None,
        base=Base("none", ZERO_DIGEST, "none"),
        rank=rank_of(fresh),
        alpha=1.0,
        shared_a=lora.factor(fresh, "A").digest,
        rule="frozen-a",
        lanes=(tuple(key.address for key in members),),
        composition="sum",
        organisations=organisations,
        validation=ZERO_DIGEST,
        auditors=(),
        seed=0,
        training=Training(1, 25, 0.0, 1, 1, 8, 1e-3, gradient_checkpointing=False, dropout=0.0, evaluate_limit=1),
        participation=Participation("all", 1.0, 1, 0),
        norm_bound=1e6,
        environment={},
    )

"""The page of formats names the fields that the code has: of every signed struct, and of every JSON noun."""

import re
from dataclasses import fields

import pytest

from core.answers import AnswerReceipt
from core.calibration import Calibration
from core.erasures import Attestation, ErasureRequest, Receipt
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.rotations import Rotation
from core.rounds import RoundRecord, Salts
from core.signed import Statement
from core.update import Offer, Registration, UpdateManifest
from provenance.trace import TokenTrace
from tests.docs.blocks import ROOT
from unlearning.certificate import ErasureCertificate

PAGE = (ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
STATEMENTS: tuple[type[Statement], ...] = (
    Registration, UpdateManifest, Offer, RoundRecord, GenerationRecord, ErasureRequest, Attestation, ErasureCertificate,
    Receipt, Calibration, AnswerReceipt, Rotation,
)  # fmt: skip
_KEY = "bytes32 genesis, uint32 lane, uint32 generation, uint32 round"


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.__name__)
def test_the_page_has_the_fields_that_are_signed_in_their_order(statement: type[Statement]) -> None:
    (documented,) = re.findall(rf"^\| `{statement.struct}` \| [^|]* \| (.*) \|$", PAGE, re.MULTILINE)
    signed = ", ".join(f"{kind} {name}" for name, kind in statement.struct_fields)
    assert documented.replace("KEY", _KEY) == signed


@pytest.mark.parametrize("noun", [*STATEMENTS, Genesis, Salts, TokenTrace], ids=lambda noun: noun.__name__)
def test_the_page_has_every_field_of_a_noun_and_no_other(noun: type) -> None:
    section = PAGE.split(f"\n**{noun.__name__}**")[1].split("\n**")[0].split("\n## ")[0]
    has = {field.name for field in fields(noun)}
    assert not [name for name in has if f"`{name}`" not in section]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert not rows or set(re.findall(r"`(\w+)`", " ".join(rows))) == has

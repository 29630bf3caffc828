"""A key in a token signs as one in a file does; SoftHSM stands for the hardware, and is skipped where it is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from client_app.token_key import TokenKey
from core.erasures import hidden
from core.errors import UsageError
from tests import federation as f

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
MAKE = """
import pkcs11
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters
with pkcs11.lib({module!r}).get_token(token_label="foedus").open(rw=True, user_pin="1234") as session:
    curve = {{Attribute.EC_PARAMS: encode_named_curve_parameters("secp256k1")}}
    session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(store=True, label="own")
    session.generate_key(KeyType.GENERIC_SECRET, 256, store=True, label="own", template={{Attribute.SIGN: True}})
"""

pytestmark = pytest.mark.skipif(not MODULE.exists(), reason="needs SoftHSM (Debian: apt-get install softhsm2)")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> TokenKey:
    folder = tmp_path_factory.mktemp("token")
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        made = ["softhsm2-util", "--init-token", "--free", "--label", "foedus", "--pin", "1234", "--so-pin", "1234"]
        subprocess.run(made, check=True, capture_output=True)
        subprocess.run([sys.executable, "-c", MAKE.format(module=str(MODULE))], check=True)
        return TokenKey(MODULE, "foedus", "own", "1234")


def test_what_a_token_signs_is_verified_like_any_other(token: TokenKey) -> None:
    genesis = f.genesis()
    for number in range(8):  # half of them come with s in the upper half
        offered = f.manifest(genesis, organisation=token.address, tokens=number).sign(token, genesis.chain)
        assert offered.signed_by(genesis.chain, token.address)
        assert offered.public_key(genesis.chain) == token.public


def test_its_salts_are_its_own_and_the_same_again(token: TokenKey) -> None:
    nonce, records = f.other("nonce"), [f.other("record")]
    salt = token.salt_for(nonce)
    assert hidden(salt, records) == hidden(token.salt_for(nonce), records)
    assert hidden(salt, records) != hidden(token.salt_for(f.other("another")), records)
    assert hidden(salt, records) != hidden(f.key("medical").salt_for(nonce), records)
    assert token.nonce_for(nonce) == token.nonce_for(nonce) != token.salt_for(nonce)


def test_a_token_without_these_keys_is_named(token: TokenKey) -> None:
    assert token.address
    with pytest.raises(UsageError, match="token 'foedus': expected a key pair and a secret key 'other'"):
        TokenKey(MODULE, "foedus", "other", "1234")
    with pytest.raises(UsageError, match="token 'absent': expected"):
        TokenKey(MODULE, "absent", "own", "1234")

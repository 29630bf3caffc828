"""`foedus signer` answers as soon as it has read the key, and loads no model for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

from client_app.remote_key import RemoteKey
from core import keys
from tests import federation as f
from tests.commands import PATIENCE_SECONDS, ended, foedus, started


def test_a_signer_holds_the_key_that_its_folder_names_until_it_is_ended(tmp_path: Path) -> None:
    key = keys.create(tmp_path / "key")
    (tmp_path / "signer.toml").write_text(
        f'coordinator = "{f.COORDINATOR.address}"\nchain-id = 31337\ncontract = "{f.CHAIN.contract}"\n'
    )
    process = started("signer", tmp_path)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "signer.sock").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert RemoteKey(tmp_path / "signer.sock").address == key.address
    finally:
        process.terminate()
        done = ended(process)
    assert not (tmp_path / "signer.sock").exists()
    assert key.address in done.err
    assert key.secret.hex() not in done.err + done.out


def test_a_folder_without_settings_or_a_key_is_named(tmp_path: Path) -> None:
    assert "signer.toml: expected a settings file" in foedus("signer", tmp_path).error
    (tmp_path / "signer.toml").write_text(
        f'coordinator = "{f.COORDINATOR.address}"\nchain-id = 31337\ncontract = "{f.CHAIN.contract}"\n'
    )
    assert f"key file {tmp_path / 'key'}: expected" in foedus("signer", tmp_path).error


def test_commands_that_need_no_model_import_none() -> None:
    code = "import sys, console.signer, console.keys, console.coordinator\n"
    code += "print(*sorted({'torch', 'transformers', 'peft', 'web3', 'ray', 'datasets'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == []

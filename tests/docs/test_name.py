"""The project's former name is gone, but for the line of the changelog that says so."""

import subprocess

from tests.docs.blocks import ROOT

_FORMER = "cove" + "nant"
_HISTORY = "CHANGELOG.md"


def test_no_file_has_the_former_name() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = listing.splitlines()
    assert not [name for name in names if _FORMER in name.lower()]
    found = [name for name in names if _FORMER.encode() in (ROOT / name).read_bytes().lower()]
    assert found in ([], [_HISTORY])


def test_the_changelog_tells_the_former_name_once_in_the_release_that_renames() -> None:
    text = (ROOT / _HISTORY).read_text(encoding="utf-8")
    assert text.lower().count(_FORMER) == 1

"""nginx as the tests use it: .ci/run installs it and fails without; elsewhere what needs it is skipped, and says so."""

import shutil

import pytest

needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx (Debian: apt-get install nginx-light)")

"""The machine: each thing that is missing is found, and says what to do."""

import resource
from collections import namedtuple
from pathlib import Path

import pytest

from console.deployments import machine_checks
from console.deployments.checkup import Check


def found(state: Path, remote: str = "") -> dict[str, Check]:
    return {one.name: one for one in machine_checks.machine_checks(state, remote)}


def test_at_least_eight_things_are_looked_at_and_a_fault_says_what_to_do(tmp_path: Path) -> None:
    checks = found(tmp_path)
    assert len(checks) >= 8
    for one in checks.values():
        assert bool(one.advice) != one.ok
        assert one.expected
    for name in ("python", "packages", "bitsandbytes", "gpu", "state folder", "locks"):
        assert checks[name].ok, checks[name]
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_what_a_machine_lacks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total free")
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", lambda _: usage(2**20, 2**20))
    monkeypatch.setattr(machine_checks, "NEEDED", ("flwr", "no-such-package"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    monkeypatch.setattr(machine_checks, "_cards", lambda: 8)
    tmp_path.chmod(0o777)
    try:
        checks = found(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for name in ("disk", "shared memory", "packages", "open files", "state folder"):
        assert not checks[name].ok, name
    assert "no-such-package missing" in checks["packages"].got
    assert checks["gpu"].got.startswith("8 of NVIDIA")


def test_a_network_file_system_is_no_place_for_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = namedtuple("part", "mountpoint fstype")
    monkeypatch.setattr(
        machine_checks.psutil, "disk_partitions", lambda **_: [part("/", "ext4"), part(str(tmp_path), "nfs4")]
    )
    assert (found(tmp_path / "state")["locks"].ok, found(tmp_path / "state")["locks"].got) == (False, "nfs4")
    assert found(tmp_path.parent)["locks"].got == "ext4"


def test_a_proxy_on_the_way_is_named_with_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    assert found(tmp_path, "foedus.example")["proxy"].ok
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked = found(tmp_path, "foedus.example")["proxy"]
    assert (asked.ok, asked.got) == (False, "foedus.example by way of a proxy")
    assert "foedus.example" in asked.advice
    monkeypatch.setenv("no_proxy", "127.0.0.1,foedus.example")
    assert found(tmp_path, "foedus.example")["proxy"].ok

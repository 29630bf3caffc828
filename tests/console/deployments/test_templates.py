"""Units and compose files are whole, and what the image and the services must not do stays so."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from console.deployments.templates import watched_by, write_templates
from tests import test_helm as chart

VALUES = {"folder": Path("/etc/foedus/clinics"), "program": Path("/usr/bin/true"), "user": "root", "port": 9092}
VALUES |= {"hosts": '["hub.example"]'}
VALUES |= {"node_user": "root", "signer_user": "root", "data": Path("/srv/data")}
VALUES |= {"key": Path("/etc/foedus/clinics/own.key")}
VALUES |= {"coordinator_port": 9092, "chain_port": 8545} | watched_by("127.0.0.1:9465", "127.0.0.1:9465")


ODD = Path('/srv/%h, a "b": [c] $HOME ${D} $(E) \\e: #')


@pytest.mark.parametrize("kind", ["coordinator", "organisation"])
def test_every_template_is_filled_in(tmp_path: Path, kind: str) -> None:
    written = write_templates(kind, tmp_path, VALUES)
    assert written
    for path in written:
        assert "$" not in path.read_text()
        assert path.parent == (tmp_path if path.suffix == ".yaml" else tmp_path / "systemd")
    for unit in (tmp_path / "systemd").iterdir():
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
        parser.optionxform = str  # type: ignore[assignment, method-assign] # the documented way to keep the case
        parser.read(unit)
        assert "Unit" in parser or "Socket" in parser
        if "ExecStart" in parser["Service"] if "Service" in parser else False:
            assert parser["Service"].get("NoNewPrivileges", "yes") == "yes"


def in_odd_places(kind: str, folder: Path) -> dict[str, str]:
    """The files for paths with letters that systemd, compose and YAML read as their own, by name."""
    places = {name: ODD / str(name) for name, value in VALUES.items() if isinstance(value, Path)}
    return {path.name: path.read_text() for path in write_templates(kind, folder, VALUES | places)}


def words(text: str, *doubled: str) -> list[str]:
    """The words of a unit's line, in which a sign that systemd reads as its own is written twice."""
    found = shlex.split(text)
    for sign in doubled:
        assert not [word for word in found if sign in word.replace(2 * sign, "")]
        found = [word.replace(2 * sign, sign) for word in found]
    return found


def test_a_unit_names_folders_as_systemd_reads_them(tmp_path: Path) -> None:
    texts = in_odd_places("coordinator", tmp_path) | in_odd_places("organisation", tmp_path)
    folder, program = str(ODD / "folder"), str(ODD / "program")
    for part, given, writes in (
        ("coordinator", folder, [folder]),
        ("signer", f"{folder}/signer", [f"{folder}/signer", f"{folder}/socket"]),
        ("node", f"{folder}/node", [f"{folder}/node"]),
    ):
        unit = dict(re.findall(r"^(\w+)=(.*)$", texts[f"foedus-{part}.service"], re.MULTILINE))
        assert words(unit["ExecStart"], "%", "$") == [program, part, given]
        assert words(unit["ReadWritePaths"], "%") == writes


def containers(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The containers of the pods in kubernetes.yaml."""
    found = [m["spec"] for m in yaml.safe_load_all(texts["kubernetes.yaml"])]
    return [one for spec in found if "template" in spec for one in spec["template"]["spec"]["containers"]]


def test_a_command_on_kubernetes_names_folders_as_it_reads_them(tmp_path: Path) -> None:
    for kind, command, given in (("coordinator", "coordinator", ""), ("organisation", "node", "/node")):
        found = containers(in_odd_places(kind, tmp_path))
        (path,) = (one["command"][2] for one in found if one.get("command", [])[:2] == ["foedus", command])
        # A $ before a bracket begins a variable's name there, and two are one.
        assert "$" not in path.replace("$$", "")
        assert path.replace("$$", "$") == f"{ODD}/folder{given}"


def test_compose_and_kubernetes_mount_folders_of_any_name(tmp_path: Path) -> None:
    folder, data = str(ODD / "folder"), str(ODD / "data")
    for kind, service, mounted in (
        ("coordinator", "coordinator", {(folder, "/etc/foedus")}),
        ("organisation", "node", {(f"{folder}/node", "/etc/foedus/node"), (data, data)}),
    ):
        texts = in_odd_places(kind, tmp_path)
        volumes = yaml.safe_load(texts["compose.yaml"])["services"][service]["volumes"]
        # In the long form alone: where the short one has a colon, a path ends.
        ends = {(volume["source"], volume["target"]) for volume in volumes}
        assert not [path for path in chain.from_iterable(ends) if "$" in path.replace("$$", "")]
        assert {(source.replace("$$", "$"), target.replace("$$", "$")) for source, target in ends} >= mounted
        places = [mount["mountPath"] for container in containers(texts) for mount in container["volumeMounts"]]
        assert {place for place in places if place.startswith(str(ODD))} >= {folder if kind == "coordinator" else data}
        assert f"{folder}/node" in places or kind == "coordinator"


@pytest.mark.parametrize("kind", ["coordinator", "organisation"])
def test_the_values_for_helm_are_some_that_the_chart_has_and_install_this_part_alone(tmp_path: Path, kind: str) -> None:
    write_templates(kind, tmp_path, VALUES)
    own = yaml.safe_load((tmp_path / "helm-values.yaml").read_text())
    assert [name for name, section in own.items() if section.get("enabled")] == [
        {"coordinator": "coordinator", "organisation": "node"}[kind]
    ]
    assert all(section.keys() <= chart.VALUES[name].keys() for name, section in own.items())
    for manifest in chart.manifests(chart.changed(**own)):
        kubernetes_validate.validate(manifest, chart.KUBERNETES, strict=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("kind", ["coordinator", "organisation"])
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path, kind: str) -> None:
    program = tmp_path / "a %h; #"  # systemd runs no program with quotes or a backslash in its name
    shutil.copy("/usr/bin/true", program)
    odd = {"program": program, "folder": tmp_path / ODD.name}
    units = [path for path in write_templates(kind, tmp_path, VALUES | odd) if path.suffix == ".service"]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert str(tmp_path) not in done.stderr, done.stderr  # where ip is missing, it says so


def test_a_signer_has_no_network_and_nothing_but_the_coordinator_publishes_a_port(tmp_path: Path) -> None:
    services = {}
    for kind in ("coordinator", "organisation"):
        write_templates(kind, tmp_path, VALUES)
        services |= yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service["user"] == "10001:10001"
        assert service["read_only"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        assert service["cap_drop"] == ["ALL"]
        assert (service.get("network_mode") == "none") == (name == "signer")
        assert service.get("ports", []) == (["9092:9092"] if name == "coordinator" else [])
    # The node's container sees no key, the signer's no data.
    mounted = {name: {volume["source"] for volume in services[name]["volumes"]} for name in ("node", "signer")}
    assert mounted["node"] == {f"{VALUES['folder']}/{part}" for part in ("node", "socket")} | {"/srv/data", "base"}
    assert mounted["signer"] == {f"{VALUES['folder']}/{part}" for part in ("signer", "socket")}


@pytest.mark.parametrize("kind", ["coordinator", "organisation"])
def test_a_compose_file_is_one_by_its_specification(tmp_path: Path, kind: str) -> None:
    write_templates(kind, tmp_path, VALUES)
    found = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    plain = yaml.safe_dump({name: value for name, value in found.items() if not name.startswith("x-")})
    assert PyCompose.from_yaml(plain).service_names() == sorted(found["services"])


def manifests(folder: Path, kind: str) -> list[dict[str, Any]]:
    write_templates(kind, folder, VALUES)
    return list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text()))


@pytest.mark.parametrize("kind", ["coordinator", "organisation"])
def test_every_manifest_is_one_of_kubernetes(tmp_path: Path, kind: str) -> None:
    found = manifests(tmp_path, kind)
    assert {"NetworkPolicy", "StatefulSet" if kind == "coordinator" else "Deployment"} <= {m["kind"] for m in found}
    for manifest in found:
        kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_fleet_alone_reaches_a_coordinator_and_nothing_a_node(tmp_path: Path) -> None:
    policies = [
        next(m["spec"] for m in manifests(tmp_path, kind) if m["kind"] == "NetworkPolicy")
        for kind in ("coordinator", "organisation")
    ]
    open_to_all = [[r["ports"] for r in policy["ingress"] if "from" not in r] for policy in policies]
    assert open_to_all == [[[{"protocol": "TCP", "port": 9092}]], []]
    assert {p["port"] for rule in policies[1]["egress"] for p in rule["ports"]} == {53, 9092, 8545}


def test_pods_run_as_a_numeric_user_on_a_root_that_is_read_only(tmp_path: Path) -> None:
    for kind in ("coordinator", "organisation"):
        (pod,) = (m["spec"]["template"]["spec"] for m in manifests(tmp_path, kind) if "template" in m["spec"])
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
        assert not pod["automountServiceAccountToken"]
        for container in (*pod["initContainers"], *pod["containers"]):
            locked = container["securityContext"]
            assert locked["readOnlyRootFilesystem"]
            assert locked["capabilities"] == {"drop": ["ALL"]}
        secrets = [volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume]
        assert set(secrets) == {0o400}


def test_only_the_signers_container_has_the_key(tmp_path: Path) -> None:
    (pod,) = (m["spec"]["template"]["spec"] for m in manifests(tmp_path, "organisation") if m["kind"] == "Deployment")
    mounted = {c["name"]: {mount["name"] for mount in c["volumeMounts"]} for c in pod["containers"]}
    assert "signer-given" in mounted["signer"]
    assert not mounted["node"] & {"signer", "signer-given"}
    assert not mounted["signer"] & {"node", "node-given", "data"}


def test_health_is_asked_where_the_metrics_are_and_is_no_question_without_them() -> None:
    watched = watched_by("0.0.0.0:9999", "127.0.0.1:9465")
    assert watched["metrics"] == "9999"
    assert "http://127.0.0.1:9999/health" in json.loads(str(watched["health"]))[2]
    assert json.loads(str(watched["check"]))[0] == "CMD"
    assert watched_by("", "127.0.0.1:9465")["health"] == '["true"]'

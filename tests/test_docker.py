"""What docker/ has for containers and whoever watches them: checked by the parsers of those that read it.

There is no container engine where it is tested: nothing here was built or started in one.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from compose_spec import PyCompose

from core.canonical import parse_json

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
ALERTS = yaml.safe_load((DOCKER / "monitoring" / "alerts.yaml").read_text(encoding="utf-8"))
DASHBOARD = parse_json((DOCKER / "monitoring" / "grafana" / "dashboard.json").read_bytes())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def known() -> set[str]:
    """The name of every metric that the monitors write, as Prometheus has it."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "console" / "monitoring").glob("*.py")]
    names = {name for source in sources for name in re.findall(r'"(foedus_\w+)"', source)}
    # A counter's samples have a suffix, which Prometheus' own client adds.
    counters = {name for source in sources for name in re.findall(r'CounterMetricFamily\(\s*"(foedus_\w+)"', source)}
    return {f"{name}_total" if name in counters else name for name in names}


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of a rule and of a panel, with its place."""
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


def selectors(expression: Any) -> Iterator[Any]:
    """Every selector of a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    inner = [getattr(expression, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    for part in (*inner, *getattr(expression, "args", ())):
        if part is not None:
            yield from selectors(part)


@pytest.mark.parametrize(("where", "text"), list(expressions()), ids=lambda text: text[:40])
def test_every_expression_is_promql_of_metrics_that_exist(where: str, text: str) -> None:
    used = {selector.name for selector in selectors(promql_parser.parse(text))}
    assert used, where
    assert used <= known() | {"up"}, where


def test_a_metric_of_another_name_would_be_found() -> None:
    parsed = promql_parser.parse("time() - rate(foedus_none[5m]) > 3 or foedus_other{a='b'}")
    assert {selector.name for selector in selectors(parsed)} == {"foedus_none", "foedus_other"}
    assert len(known()) > 20


def test_the_five_alerts_say_what_is_wrong_and_what_to_do() -> None:
    assert len(RULES) == 5
    assert len({rule["alert"] for rule in RULES}) == 5
    for rule in RULES:
        assert {"alert", "expr", "for", "labels", "annotations"} == rule.keys()
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["runbook"]
        assert rule["annotations"]["summary"]


def test_the_dashboard_shows_every_metric_but_names() -> None:
    shown = {s.name for _, text in expressions() for s in selectors(promql_parser.parse(text))}
    unseen = {"foedus_node_info", "foedus_coordinator_info", "foedus_coordinator_admitted_nodes",
              "foedus_run_started_timestamp_seconds", "foedus_node_last_answer_timestamp_seconds",
              "foedus_node_working_since_timestamp_seconds"}  # fmt: skip
    assert known() - shown == unseen


# Images


def instructions() -> list[str]:
    """The instructions of the Dockerfile, each on a line."""
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_hadolint_finds_no_fault_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_image_that_runs_is_of_a_numeric_user_and_of_locked_wheels() -> None:
    stages: dict[str, list[str]] = {}
    for line in instructions():
        if match := re.fullmatch(r"FROM (\S+) AS ([\w-]+)", line):
            stages[match[2]] = list(stages.get(match[1], []))
        elif stages:
            list(stages.values())[-1].append(line)
    for name in ("node", "coordinator", "tools", "anvil"):
        users = [line for line in stages[name] if line.startswith("USER ")]
        assert users[-1:] == ["USER 10001:10001"], name
        assert any(line.startswith("LABEL org.opencontainers.image.title") for line in stages[name])
    installed = [line for lines in stages.values() for line in lines if "pip install" in line]
    for line in installed:
        for command in re.findall(r"pip install ([^&]*)", line):
            assert "--require-hashes" in command or "^torch==" in command or command.strip() == "--no-deps ."
    node = " ".join(stages["node-build"])
    assert "locks/node.txt" in node
    assert not re.search(r"(?m)^(ray|datasets)==", (ROOT / "locks" / "node.txt").read_text(encoding="utf-8"))


def test_the_packages_of_a_store_fit_beside_those_of_a_node() -> None:
    pins = [
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in (DOCKER / "requirements-store.txt", ROOT / "locks" / "node.txt")
    ]
    store, node = pins
    assert {name: store[name] for name in store.keys() & node.keys()} == {
        name: node[name] for name in store.keys() & node.keys()
    }
    assert "s3fs" in store


# Compose


def composed(name: str) -> dict[str, Any]:
    """A compose file, with the values that it has where no variable is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DOCKER / name).read_text(encoding="utf-8"))
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_a_compose_file_is_one_by_its_specification(name: str) -> None:
    found = composed(name)
    plain = yaml.safe_dump({key: value for key, value in found.items() if not key.startswith("x-")})
    assert PyCompose.from_yaml(plain).service_names() == sorted(found["services"])
    with pytest.raises(ValueError, match="netwrks"):
        PyCompose.from_yaml(plain.replace("networks:", "netwrks:").replace("deploy:", "netwrks:"))


def test_each_organisation_is_in_a_network_of_its_own_with_nginx_and_the_chain() -> None:
    found = composed("compose.yaml")
    services = found["services"]
    for name in ("coding", "financial", "medical"):
        there = {service for service, of in services.items() if name in of.get("networks", [])}
        assert there == {f"{name}-node", "coordinator", "chain", "prometheus"}
        assert found["networks"][name] == {"internal": True}
        assert services[f"{name}-signer"]["network_mode"] == "none"
    assert [service for service, of in services.items() if "ports" in of] == ["grafana"]


def test_no_service_runs_as_root_or_without_limits() -> None:
    for name, service in composed("compose.yaml")["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]
        assert service["logging"]["options"]["max-size"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        if service["image"].startswith("foedus"):
            assert (service["user"], service["init"]) == ("10001:10001", True)


def test_no_node_sees_a_key_and_every_base_is_mounted_offline() -> None:
    for name, service in composed("compose.yaml")["services"].items():
        subpaths = [volume["volume"]["subpath"] for volume in service.get("volumes", []) if isinstance(volume, dict)]
        if name.endswith("-node"):
            assert not [path for path in subpaths if "signer" in path]
            assert "base:/base:ro" in service["volumes"]
        if name.endswith("-signer"):
            assert not [path for path in subpaths if path.endswith("/node")]


def test_prometheus_asks_services_that_are_there_at_the_ports_of_their_settings() -> None:
    asked = yaml.safe_load((DOCKER / "monitoring" / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = [t for job in asked["scrape_configs"] for static in job["static_configs"] for t in static["targets"]]
    services = composed("compose.yaml")["services"]
    assert {target.partition(":")[0] for target in targets} <= services.keys()
    assert {target.partition(":")[2] for target in targets} == {"9464", "9465"}
    assert 'metrics = "0.0.0.0:9464"' in (DOCKER / "federation.toml").read_text(encoding="utf-8")
    assert "METRICS:=0.0.0.0:9465" in (DOCKER / "prepare.sh").read_text(encoding="utf-8")

"""The Helm chart, filled in by the little of Helm's language that it uses, against Kubernetes' schemas.

Helm itself is not there: what is checked are the manifests, not that Helm makes them.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

CHART = Path(__file__).parent.parent / "docker" / "helm"
VALUES: Mapping[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
KUBERNETES = "1.31"
# `{{-` takes away the white space before it.
_TAG = re.compile(r"\s*\{\{- (if|else|end)(?: \.Values\.([\w.]+))? ?\}\}")
_VALUE = re.compile(r"\{\{ \.Values\.([\w.]+)(?: \| (quote|toJson))? \}\}")


def value_of(values: Mapping[str, Any], name: str) -> Any:
    found: Any = values
    for part in name.split("."):
        found = found[part]  # KeyError: a template asks for a value that values.yaml lacks
    return found


def rendered(text: str, values: Mapping[str, Any]) -> str:
    """A template with its conditions decided and its values in place."""
    kept, shown, position = [""], [True], 0
    for tag in _TAG.finditer(text):
        kept.append(text[position : tag.start()] if all(shown) else "")
        position = tag.end()
        match tag[1]:
            case "if":
                shown.append(bool(value_of(values, tag[2])))
            case "else":
                shown[-1] = not shown[-1]
            case "end":
                shown.pop()
    assert shown == [True], "a condition is not closed"
    plain = "".join(kept) + text[position:]

    def shown_value(match: re.Match[str]) -> str:
        value = value_of(values, match[1])
        return json.dumps(value) if match[2] else str(value)

    filled = _VALUE.sub(shown_value, plain)
    assert "{{" not in filled
    return filled


def changed(**sections: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {**section, **sections.get(name, {})} for name, section in VALUES.items()}


def manifests(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for path in sorted((CHART / "templates").glob("*.yaml")):
        found += [one for one in yaml.safe_load_all(rendered(path.read_text(encoding="utf-8"), values)) if one]
    return found


EVERYTHING = changed(
    coordinator={"enabled": True}, node={"enabled": True, "gpus": 1}, certificate={"certManager": True}
)


def test_nothing_is_installed_that_nobody_asked_for() -> None:
    assert manifests(VALUES) == []
    assert {one["kind"] for one in manifests(changed(node={"enabled": True}))} == {
        "Deployment", "NetworkPolicy", "PersistentVolumeClaim",
    }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [changed(coordinator={"enabled": True}), changed(node={"enabled": True}), EVERYTHING],
    ids=["coordinator", "node", "everything"],
)
def test_every_manifest_is_one_of_kubernetes(values: Mapping[str, Any]) -> None:
    for manifest in manifests(values):
        if manifest["kind"] != "Certificate":  # cert-manager's own, whose schema is not among Kubernetes'
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_certificate_is_the_operators_or_cert_managers() -> None:
    own, managed = (
        next(one for one in manifests(values) if one["kind"] == "StatefulSet")
        for values in (changed(coordinator={"enabled": True}), EVERYTHING)
    )
    sources = [
        {m["subPath"]: m["name"] for m in one["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
         if "subPath" in m and m["mountPath"].startswith("/etc/foedus/server")}
        for one in (own, managed)
    ]  # fmt: skip
    assert sources == [
        {"server.key": "given", "server.pem": "given"}, {"tls.key": "certificate", "tls.crt": "certificate"},
    ]  # fmt: skip
    (certificate,) = (one for one in manifests(EVERYTHING) if one["kind"] == "Certificate")
    assert certificate["spec"]["dnsNames"] == VALUES["certificate"]["hosts"]


def test_a_gpu_is_asked_for_only_where_it_is_wanted() -> None:
    for gpus in (0, 2):
        values = changed(node={"enabled": True, "gpus": gpus})
        (deployment,) = (one for one in manifests(values) if one["kind"] == "Deployment")
        limits = deployment["spec"]["template"]["spec"]["containers"][1]["resources"]["limits"]
        assert limits.get("nvidia.com/gpu", 0) == gpus


def test_the_chart_says_what_was_not_tried_with_it() -> None:
    assert (CHART / "values.yaml").read_text(encoding="utf-8").startswith("# Not rendered here")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert {"apiVersion", "name", "version", "appVersion"} <= chart.keys()

"""Every manifest is what its schema and its webhook want, and a wrong field in any kind is found."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import kustomize
from tests.deploy.cron import cron_fault
from tests.deploy.rules import rule_faults
from tests.deploy.schemas import SCHEMAS, label, schema_faults
from tests.deploy.stage import BASE, KAFKA, KNATIVE, OIDC, OVERLAYS, PRODUCTION

# secret.yaml is the reader's own, by the README.
FILES = sorted(path for path in KNATIVE.rglob("*.yaml") if path.name != "secret.yaml")
EXAMPLES = [KNATIVE / "secret.example.yaml", KNATIVE / "external-secret.example.yaml"]
KINDS = {path.stem.rpartition("_")[2] for path in SCHEMAS.glob("*/*.json")}

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_objects_are_valid(overlay: Path) -> None:
    """What a cluster would get has no fault, by the schemas of its kinds and by the rules of the webhooks."""
    for document in kustomize.render(overlay):
        assert schema_faults(document) + rule_faults(document) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_files_are_valid(path: Path) -> None:
    """Each file by itself too: the kustomizations, and the examples that no kustomization names."""
    for document in kustomize.documents(path.read_text()):
        assert schema_faults(document) == []


@cache
def _objects() -> list[dict[str, Any]]:
    objects = kustomize.render(OIDC) + kustomize.render(PRODUCTION)
    for path in EXAMPLES:
        objects += kustomize.documents(path.read_text())
    return objects


def _object(kind: str, name: str) -> dict[str, Any]:
    wanted = (kind, name)
    return copy.deepcopy(next(each for each in _objects() if (each["kind"], each["metadata"]["name"]) == wanted))


def _kustomization() -> dict[str, Any]:
    (document,) = kustomize.documents((PRODUCTION / "kustomization.yaml").read_text())
    return document


def _spec(**fields: object) -> Change:
    return lambda document: document["spec"].update(fields)


def _first(**fields: object) -> Change:
    return lambda document: document["spec"]["template"]["spec"]["containers"][0].update(fields)


def _revision(**fields: object) -> Change:
    return lambda document: document["spec"]["template"]["spec"].update(fields)


def _delivery(**fields: object) -> Change:
    return lambda document: document["spec"]["delivery"].update(fields)


# A misspelt or misplaced field for each kind; the second part is what the error must name.
WRONG_FIELDS: list[tuple[str, str | None, Change, str]] = [
    ("PingSource", "weekday-evening", _spec(timeZone="Europe/Berlin"), "timeZone"),
    ("Service", "bms-autostop", _revision(responseStartTimeout=30), "responseStartTimeout"),
    ("Service", "bms-autostop", _revision(timeoutSeconds="90"), "timeoutSeconds"),
    ("Service", "bms-autostop", lambda d: d["spec"]["template"]["metadata"].update(anotations={}), "anotations"),
    ("Trigger", "bms-autostop", _spec(filtres=[]), "filtres"),
    ("Trigger", "bms-autostop", _delivery(retries=3), "retries"),
    ("Trigger", "bms-autostop", lambda d: d["spec"]["subscriber"]["ref"].update(nmae="x"), "nmae"),
    ("Broker", "bms-autostop", _delivery(backOffDelay="PT1S"), "backOffDelay"),
    ("SinkBinding", "bms-autostop-webhook", lambda d: d["spec"]["subject"].update(labels={}), "labels"),
    ("NetworkPolicy", "bms-autostop-in", _spec(policyType=["Ingress"]), "policyType"),
    ("ConfigMap", "bms-autostop-broker", lambda d: d.update(date={}), "date"),
    ("ServiceAccount", "bms-autostop", lambda d: d.update(automount=False), "automount"),
    ("Namespace", "bms-autostop", lambda d: d["metadata"].update(label={}), "label"),
    ("ClusterRoleBinding", "bms-autostop-issuer-discovery", lambda d: d.update(roleref={}), "roleref"),
    ("Secret", "bms-autostop-cloud", lambda d: d.update(stringdata={}), "stringdata"),
    ("ExternalSecret", "bms-autostop-cloud", _spec(refreshIntervall="1h"), "refreshIntervall"),
    ("Kustomization", None, lambda d: d.update(resource=["base"]), "resource"),
    ("Kustomization", None, lambda d: d["patches"][0].update(pach="x"), "pach"),
]


@pytest.mark.parametrize(
    ("kind", "name", "change", "named"), WRONG_FIELDS, ids=[f"{kind}-{named}" for kind, _, _, named in WRONG_FIELDS]
)
def test_wrong_field_is_found(kind: str, name: str | None, change: Change, named: str) -> None:
    """The object is valid before, and one field that its kind does not have makes it invalid."""
    document = _object(kind, name) if name else _kustomization()
    assert schema_faults(document) == []
    change(document)
    assert any(named in fault for fault in schema_faults(document))


def test_wrong_field_is_shown_for_every_kind() -> None:
    """No kind that there is a schema for, and none that the manifests use, is left out above."""
    used = {document["kind"] for path in FILES for document in kustomize.documents(path.read_text())}
    assert {kind for kind, *_ in WRONG_FIELDS} == KINDS == used


def test_kind_without_a_schema_is_wrong() -> None:
    """An unknown kind does not pass."""
    (fault,) = schema_faults({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {}})
    assert "no schema" in fault


def _annotated(value: object, key: str = "autoscaling.knative.dev/max-scale") -> Change:
    return lambda document: document["spec"]["template"]["metadata"]["annotations"].update({key: value})


def _env(name: str) -> Change:
    return lambda document: document["spec"]["template"]["spec"]["containers"][0]["env"].append(
        {"name": name, "value": "x"}
    )


def _mounted(**fields: object) -> Change:
    return lambda document: document["spec"]["template"]["spec"]["volumes"].append(fields)


# What no schema finds. The last part is what the error must name.
WRONG_VALUES: list[tuple[str, str, Change, str]] = [
    ("PingSource", "weekday-evening", _spec(schedule="@every 1h"), "@every"),
    ("PingSource", "weekday-evening", _spec(schedule="0 25 * * *"), "25"),
    ("PingSource", "weekday-evening", _spec(timezone="Europe/Bonn"), "timezone"),
    ("PingSource", "weekday-evening", _spec(timezone=None), "timezone"),
    ("PingSource", "weekday-evening", _spec(data='["5f0c1a52"]'), "must be a JSON object"),
    ("PingSource", "weekday-evening", _spec(data="{"), "must be a JSON object"),
    ("PingSource", "weekday-evening", _spec(data='{"server_ids": ["web-1"]}'), "server_ids"),
    ("PingSource", "weekday-evening", _spec(data='{"server_ids": []}'), "server_ids"),
    ("PingSource", "weekday-evening", _spec(contentType="text/plain"), "contentType"),
    ("PingSource", "weekday-evening", _spec(dataBase64="e30="), "exclude"),
    ("PingSource", "weekday-evening", _spec(sink={}), "sink"),
    ("Service", "bms-autostop", _env("PORT"), "PORT is reserved"),
    ("Service", "bms-autostop", _env("K_REVISION"), "K_REVISION is reserved"),
    ("Service", "bms-autostop", _first(ports=[{"containerPort": 8012}]), "8012 is reserved"),
    ("Service", "bms-autostop", _first(ports=[{"containerPort": 80, "name": "web"}]), "http1"),
    ("Service", "bms-autostop", _first(ports=[{"containerPort": 80}, {"containerPort": 81}]), "more than one port"),
    (
        "Service",
        "bms-autostop",
        _first(env=[{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]),
        "fieldRef",
    ),
    (
        "Service",
        "bms-autostop",
        _first(readinessProbe={"httpGet": {"path": "/readyz"}, "failureThreshold": 3}),
        "periodSeconds",
    ),
    ("Service", "bms-autostop", _first(livenessProbe={"httpGet": {"path": "/x", "port": 8080}}), "leave the port out"),
    ("Service", "bms-autostop", _annotated(3), "must be a string"),
    ("Service", "bms-autostop", _annotated("many"), "must be an integer"),
    ("Service", "bms-autostop", _annotated("3", "autoscaling.knative.dev/maxscale"), "not known"),
    (
        "Service",
        "bms-autostop",
        lambda d: d["metadata"].update(annotations={"autoscaling.knative.dev/max-scale": "3"}),
        "on the template",
    ),
    ("Service", "bms-autostop", _revision(timeoutSeconds=900), "timeoutSeconds"),
    ("Service", "bms-autostop", _revision(responseStartTimeoutSeconds=120), "responseStartTimeoutSeconds"),
    ("Service", "bms-autostop", _revision(containerConcurrency=2000), "containerConcurrency"),
    ("Service", "bms-autostop", _revision(nodeSelector={"disk": "ssd"}), "nodeSelector"),
    ("Service", "bms-autostop", _mounted(name="spare", emptyDir={}), "not mounted"),
    ("Service", "bms-autostop", _mounted(name="tmp", hostPath={"path": "/"}), "kind that is off"),
    ("Trigger", "bms-autostop", _spec(broker=""), "no broker"),
    ("Trigger", "bms-autostop", _spec(filter={"attributes": {}}), "ignored"),
    ("Trigger", "bms-autostop", _spec(filters=[{"any": [{"exakt": {"type": "x"}}]}]), "exakt"),
    ("Trigger", "bms-autostop", _spec(filters=[{"not": {"exact": {}}}]), "wants attributes"),
    ("Trigger", "bms-autostop", _spec(subscriber={}), "subscriber"),
    (
        "Trigger",
        "bms-autostop",
        lambda d: d["spec"]["subscriber"].update(uri="http://elsewhere.example"),
        "relative",
    ),
    ("Trigger", "bms-autostop", _delivery(backoffDelay="45s"), "backoffDelay"),
    ("Trigger", "bms-autostop", _delivery(timeout="P"), "timeout"),
    ("Trigger", "bms-autostop", _delivery(backoffPolicy="quadratic"), "backoffPolicy"),
    ("Trigger", "bms-autostop", _delivery(retry=-1), "retry"),
    ("Trigger", "bms-autostop", _delivery(retryAfterMax="PT1M"), "retryAfterMax"),
    ("Broker", "bms-autostop", _delivery(deadLetterSink={"ref": {"kind": "Service"}}), "deadLetterSink"),
    ("SinkBinding", "bms-autostop-webhook", lambda d: d["spec"]["subject"].update(selector={}), "selector"),
]


@pytest.mark.parametrize(
    ("kind", "name", "change", "named"),
    WRONG_VALUES,
    ids=[f"{number}-{kind}-{named}" for number, (kind, _, _, named) in enumerate(WRONG_VALUES)],
)
def test_what_a_webhook_refuses_is_found(kind: str, name: str, change: Change, named: str) -> None:
    """The object passes before, and what a cluster would turn down is found without one."""
    document = _object(kind, name)
    assert rule_faults(document) == []
    change(document)
    assert any(named in fault for fault in rule_faults(document))


def test_filters_may_be_nested_and_use_cesql() -> None:
    """All of Knative's dialects are known."""
    document = _object("Trigger", "bms-autostop")
    document["spec"]["filters"] = [
        {"all": [{"suffix": {"type": ".v1"}}, {"not": {"prefix": {"source": "/a"}}}]},
        {"cesql": "type LIKE 'io.%'"},
    ]
    assert rule_faults(document) == []


@pytest.mark.parametrize(
    "schedule", ["0 20 * * 1-5", "*/15 8-18 1,15 jan-mar MON-FRI", "30 0 20 ? * *", "@daily", "@hourly"]
)
def test_schedule_is_taken(schedule: str) -> None:
    """Five fields, six with seconds, and descriptors."""
    assert cron_fault(schedule) is None


@pytest.mark.parametrize(
    "schedule",
    [
        "@every 5m",
        "@reboot",
        "CRON_TZ=Europe/Berlin 0 20 * * *",
        "0 20 * *",
        "0 20 * * 8",
        "0 20 * * fri-mon",
        "0 20 0 * *",
        "61 * * * *",
        "*/0 * * * *",
        "*-5 * * * *",
        "0 20 * * 1-5-6",
        "0 20 * foo *",
    ],
)
def test_schedule_is_refused(schedule: str) -> None:
    """What a PingSource's webhook would refuse, or would take and never run as meant."""
    assert cron_fault(schedule) is not None


# --- the reader


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; it is only a second opinion")
def test_reader_agrees_with_kustomize(overlay: Path) -> None:
    """Where there is a kubectl, its kustomize makes the same objects."""
    reported = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=True, timeout=60
    )
    theirs = {label(document): document for document in yaml.safe_load_all(reported.stdout)}
    assert {label(document): document for document in kustomize.render(overlay)} == theirs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("components: [x]", "components"),
        ("patches: [{target: {kind: Service, name: nobody}, patch: '[{op: move, path: /x}]'}]", "nobody"),
        ("patches: [{patch: '{kind: Service, metadata: {name: nobody}}'}]", "nobody"),
        ("patches: [{target: {kind: Broker, name: b}, patch: '[{op: test, path: /spec/a, value: 2}]'}]", "not 2"),
        ("patches: [{target: {kind: Broker, name: b}, patch: '[{op: move, path: /spec/a}]'}]", "move"),
    ],
)
def test_reader_refuses_what_it_does_not_know(tmp_path: Path, text: str, shown: str) -> None:
    """It would rather fail than read a kustomization differently from kustomize."""
    (tmp_path / "kustomization.yaml").write_text(f"resources: [b.yaml]\n{text}\n")
    (tmp_path / "b.yaml").write_text(json.dumps({"kind": "Broker", "metadata": {"name": "b"}, "spec": {"a": 1}}))
    with pytest.raises(ValueError, match=shown):
        kustomize.render(tmp_path)


def test_reader_applies_patches(tmp_path: Path) -> None:
    """A JSON patch adds, replaces and escapes; a merge patch changes, takes away with null, and deletes."""
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [b.yaml]\n"
        "patches:\n"
        "- target: {kind: Broker, name: b}\n"
        '  patch: \'[{op: add, path: "/spec/x~1y", value: 1}, {op: replace, path: /spec/l/0, value: 5},'
        " {op: add, path: /spec/l/0, value: 4}]'\n"
        "- patch: '{kind: Broker, metadata: {name: b}, spec: {a: null, c: {d: 2}}}'\n"
        "- patch: '{$patch: delete, kind: Broker, metadata: {name: gone}}'\n"
    )
    objects = [
        {"kind": "Broker", "metadata": {"name": "b"}, "spec": {"a": 1, "l": [9], "c": {"e": 3}}},
        {"kind": "Broker", "metadata": {"name": "gone"}},
    ]
    (tmp_path / "b.yaml").write_text("\n---\n".join(json.dumps(each) for each in objects))
    (document,) = kustomize.render(tmp_path)
    assert document["spec"] == {"x/y": 1, "l": [4, 5], "c": {"d": 2, "e": 3}}


def test_nothing_is_forgotten() -> None:
    """Each file of base and overlays is named by its kustomization; the examples are named by none."""
    for folder in (BASE, PRODUCTION, OIDC, KAFKA):
        (kustomization,) = kustomize.documents((folder / "kustomization.yaml").read_text())
        named = {name for name in kustomization["resources"] if name.endswith(".yaml")}
        named |= {patch["path"] for patch in kustomization.get("patches", []) if "path" in patch}
        assert named | {"kustomization.yaml"} == {path.name for path in folder.glob("*.yaml")}
    assert [path for path in FILES if path.parent == KNATIVE] == sorted(EXAMPLES)

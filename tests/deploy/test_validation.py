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
from tests.deploy.kustomize import BASE, KAFKA, KNATIVE, OIDC, OVERLAYS, PRODUCTION, label
from tests.deploy.validate import SCHEMAS, cron_error, rule_errors, schema_errors

# secret.yaml is the reader's own, by the README.
FILES = sorted(path for path in KNATIVE.rglob("*.yaml") if path.name != "secret.yaml")
EXAMPLES = [KNATIVE / "secret.example.yaml", KNATIVE / "external-secret.example.yaml"]
KINDS = {path.stem.rpartition("_")[2] for path in SCHEMAS.glob("*/*.json")}

Check = Callable[[dict[str, Any]], list[str]]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_objects_are_valid(overlay: Path) -> None:
    """What a cluster would get has no error, by the schemas of its kinds and by the rules of the webhooks."""
    for document in kustomize.render(overlay):
        assert schema_errors(document) + rule_errors(document) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_files_are_valid(path: Path) -> None:
    """Each file by itself too: the kustomizations, and the examples that no kustomization names."""
    for document in kustomize.documents(path.read_text()):
        assert schema_errors(document) == []


@cache
def _objects() -> dict[str, dict[str, Any]]:
    objects = kustomize.render(OIDC) + kustomize.render(PRODUCTION)
    for path in (*EXAMPLES, PRODUCTION / "kustomization.yaml"):
        objects += kustomize.documents(path.read_text())
    return {label(document): document for document in objects}


REVISION = "spec.template.spec"
CONTAINER = f"{REVISION}.containers.0"
ANNOTATIONS = "spec.template.metadata.annotations"
SCALE = "autoscaling.knative.dev/"
SOURCE = "PingSource/weekday-evening"
SERVICE = "Service/bms-autostop"
TRIGGER = "Trigger/bms-autostop"
BROKER = "Broker/bms-autostop"
BINDING = "SinkBinding/bms-autostop-webhook"
# A misspelt or misplaced field for each kind, which its schema finds: object, where it is put, name and value.
WRONG_FIELDS: list[tuple[str, str, dict[str, object]]] = [
    (SOURCE, "spec", {"timeZone": "Europe/Berlin"}),
    (SERVICE, REVISION, {"responseStartTimeout": 30}),
    (SERVICE, REVISION, {"timeoutSeconds": "90"}),
    (SERVICE, "spec.template.metadata", {"anotations": {}}),
    (TRIGGER, "spec", {"filtres": []}),
    (TRIGGER, "spec.delivery", {"retries": 3}),
    (TRIGGER, "spec.subscriber.ref", {"nmae": "x"}),
    (BROKER, "spec.delivery", {"backOffDelay": "PT1S"}),
    (BINDING, "spec.subject", {"labels": {}}),
    ("NetworkPolicy/bms-autostop-in", "spec", {"policyType": ["Ingress"]}),
    ("ConfigMap/bms-autostop-broker", "", {"date": {}}),
    ("ServiceAccount/bms-autostop", "", {"automount": False}),
    ("Namespace/bms-autostop", "metadata", {"label": {}}),
    ("ClusterRoleBinding/bms-autostop-issuer-discovery", "", {"roleref": {}}),
    ("Secret/bms-autostop-cloud", "", {"stringdata": {}}),
    ("ExternalSecret/bms-autostop-cloud", "spec", {"refreshIntervall": "1h"}),
    ("Kustomization/None", "", {"resource": ["base"]}),
    ("Kustomization/None", "patches.0", {"pach": "x"}),
]
# Values that a webhook refuses and no schema finds; the last part is what the error must name.
WRONG_VALUES: list[tuple[str, str, dict[str, object], str]] = [
    (SOURCE, "spec", {"schedule": "@every 1h"}, "@every"),
    (SOURCE, "spec", {"schedule": "0 25 * * *"}, "25"),
    (SOURCE, "spec", {"timezone": "Europe/Bonn"}, "timezone"),
    (SOURCE, "spec", {"timezone": None}, "timezone"),
    (SOURCE, "spec", {"data": '["5f0c1a52"]'}, "must be a JSON object"),
    (SOURCE, "spec", {"data": "{"}, "must be a JSON object"),
    (SOURCE, "spec", {"data": '{"server_ids": ["web-1"]}'}, "server_ids"),
    (SOURCE, "spec", {"data": '{"server_ids": []}'}, "server_ids"),
    (SOURCE, "spec", {"contentType": "text/plain"}, "contentType"),
    (SOURCE, "spec", {"dataBase64": "e30="}, "exclude"),
    (SOURCE, "spec", {"sink": {}}, "sink"),
    (SERVICE, CONTAINER, {"env": [{"name": "PORT", "value": "x"}]}, "PORT is reserved"),
    (SERVICE, CONTAINER, {"env": [{"name": "K_REVISION", "value": "x"}]}, "K_REVISION is reserved"),
    (SERVICE, CONTAINER, {"ports": [{"containerPort": 8012}]}, "8012 is reserved"),
    (SERVICE, CONTAINER, {"ports": [{"containerPort": 80, "name": "web"}]}, "http1"),
    (SERVICE, CONTAINER, {"ports": [{"containerPort": 80}, {"containerPort": 81}]}, "more than one port"),
    (SERVICE, CONTAINER, {"env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}, "fieldRef"),
    (SERVICE, CONTAINER, {"readinessProbe": {"httpGet": {"path": "/"}, "failureThreshold": 3}}, "periodSeconds"),
    (SERVICE, CONTAINER, {"livenessProbe": {"httpGet": {"path": "/", "port": 8080}}}, "leave the port out"),
    (SERVICE, ANNOTATIONS, {f"{SCALE}max-scale": 3}, "must be a string"),
    (SERVICE, ANNOTATIONS, {f"{SCALE}max-scale": "many"}, "must be an integer"),
    (SERVICE, ANNOTATIONS, {f"{SCALE}maxscale": "3"}, "not known"),
    (SERVICE, "metadata", {"annotations": {f"{SCALE}max-scale": "3"}}, "on the template"),
    (SERVICE, REVISION, {"timeoutSeconds": 900}, "timeoutSeconds"),
    (SERVICE, REVISION, {"responseStartTimeoutSeconds": 120}, "responseStartTimeoutSeconds"),
    (SERVICE, REVISION, {"containerConcurrency": 2000}, "containerConcurrency"),
    (SERVICE, REVISION, {"nodeSelector": {"disk": "ssd"}}, "nodeSelector"),
    (SERVICE, REVISION, {"volumes": [{"name": "spare", "emptyDir": {}}]}, "not mounted"),
    (SERVICE, REVISION, {"volumes": [{"name": "tmp", "hostPath": {"path": "/"}}]}, "kind that is off"),
    (TRIGGER, "spec", {"broker": ""}, "no broker"),
    (TRIGGER, "spec", {"filter": {"attributes": {}}}, "ignored"),
    (TRIGGER, "spec", {"filters": [{"any": [{"exakt": {"type": "x"}}]}]}, "exakt"),
    (TRIGGER, "spec", {"filters": [{"not": {"exact": {}}}]}, "wants attributes"),
    (TRIGGER, "spec", {"subscriber": {}}, "subscriber"),
    (TRIGGER, "spec.subscriber", {"uri": "http://elsewhere.example"}, "relative"),
    (TRIGGER, "spec.delivery", {"backoffDelay": "45s"}, "backoffDelay"),
    (TRIGGER, "spec.delivery", {"timeout": "P"}, "timeout"),
    (TRIGGER, "spec.delivery", {"backoffPolicy": "quadratic"}, "backoffPolicy"),
    (TRIGGER, "spec.delivery", {"retry": -1}, "retry"),
    (TRIGGER, "spec.delivery", {"retryAfterMax": "PT1M"}, "retryAfterMax"),
    (BROKER, "spec.delivery", {"deadLetterSink": {"ref": {"kind": "Service"}}}, "deadLetterSink"),
    (BINDING, "spec.subject", {"selector": {}}, "selector"),
]


def errors_after(check: Check, name: str, path: str, fields: dict[str, object]) -> list[str]:
    """Return the errors of an object, which has none before, after a change at this path."""
    document = copy.deepcopy(_objects()[name])
    assert check(document) == []
    node: Any = document
    for step in path.split(".") if path else ():
        node = node[int(step)] if isinstance(node, list) else node[step]
    node.update(fields)
    return check(document)


@pytest.mark.parametrize(("name", "path", "fields"), WRONG_FIELDS, ids=str)
def test_wrong_field_is_found(name: str, path: str, fields: dict[str, object]) -> None:
    """One field that its kind does not have, or of the wrong type, makes an object invalid."""
    assert any(next(iter(fields)) in error for error in errors_after(schema_errors, name, path, fields))


def test_wrong_field_is_shown_for_every_kind() -> None:
    """No kind that there is a schema for, and none that the manifests use, is left out above."""
    used = {document["kind"] for path in FILES for document in kustomize.documents(path.read_text())}
    assert {name.partition("/")[0] for name, *_ in WRONG_FIELDS} == KINDS == used


@pytest.mark.parametrize(("name", "path", "fields", "named"), WRONG_VALUES, ids=str)
def test_what_a_webhook_refuses_is_found(name: str, path: str, fields: dict[str, object], named: str) -> None:
    """What a cluster would refuse is found without one."""
    assert any(named in error for error in errors_after(rule_errors, name, path, fields))


def test_kind_without_a_schema_is_wrong() -> None:
    """An unknown kind does not pass."""
    (error,) = schema_errors({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {}})
    assert "no schema" in error


def test_filters_may_be_nested_and_use_cesql() -> None:
    """All of Knative's dialects are known."""
    document = copy.deepcopy(_objects()[TRIGGER])
    document["spec"]["filters"] = [
        {"all": [{"suffix": {"type": ".v1"}}, {"not": {"prefix": {"source": "/a"}}}]},
        {"cesql": "type LIKE 'io.%'"},
    ]
    assert rule_errors(document) == []


VALID = ["0 20 * * 1-5", "*/15 8-18 1,15 jan-mar MON-FRI", "30 0 20 ? * *", "@daily", "@hourly"]
INVALID = [
    *("@every 5m", "@reboot", "CRON_TZ=Europe/Berlin 0 20 * * *", "0 20 * *", "0 20 * * 8", "0 20 * * fri-mon"),
    *("0 20 0 * *", "61 * * * *", "*/0 * * * *", "*-5 * * * *", "0 20 * * 1-5-6", "0 20 * foo *"),
]


@pytest.mark.parametrize("schedule", VALID + INVALID)
def test_schedules_are_five_fields_six_with_seconds_or_descriptors(schedule: str) -> None:
    """What a PingSource's webhook would refuse, or would accept and never run as meant, is an error."""
    assert (cron_error(schedule) is None) is (schedule in VALID)


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

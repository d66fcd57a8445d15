"""The manifests hold together: they say what the function needs, and agree with each other and with the code."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from handler.event_types import KEEP_REQUESTED, PING, RESULTS, STOP_APPROVED, STOP_REQUESTED
from handler.settings import declared
from handler.settings import keep_servers as keep_settings
from handler.settings import notify_chat as notify_settings
from handler.settings import receive_webhook as webhook_settings
from handler.settings import stop_servers as stop_settings
from handler.settings.common import InboundAuth
from handler.settings.env import duration
from tests.deploy.broker import ASYNC_ANNOTATION, CLASS_ANNOTATION, matches
from tests.deploy.kustomize import (
    BASE,
    KAFKA,
    KEEPS,
    KNATIVE,
    OIDC,
    OVERLAYS,
    PRODUCTION,
    documents,
    find,
    label,
    render,
)
from tests.deploy.validate import budget_errors, environment, iso_duration, schema_errors
from tests.test_events_folder import schema_violations as event_violations

README = (KNATIVE / "README.md").read_text()
OBJECTS = render(PRODUCTION)
WITH_OIDC = render(OIDC)
WITH_KEEPS = render(KEEPS)
TRIGGERS = [document for document in OBJECTS if document["kind"] == "Trigger"]
# Of every overlay: production, and what the keep overlay adds.
SERVICES = [document for document in WITH_KEEPS if document["kind"] == "Service"]
FUNCTIONS = [document for document in SERVICES if document["metadata"]["name"] != "bms-autostop-log"]
# What functions-framework itself reads.
FRAMEWORK = {"THREADS", "WORKERS", "FUNCTION_TARGET", "FUNCTION_SOURCE"}
OUTAGE = timedelta(minutes=10)


SERVICE = find(OBJECTS, "Service", "bms-autostop")
TRIGGER = find(OBJECTS, "Trigger", "bms-autostop")
KEEP = find(WITH_KEEPS, "Service", "bms-autostop-keep")
BROKER = find(OBJECTS, "Broker", "bms-autostop")
(SECRET,) = documents((KNATIVE / "secret.example.yaml").read_text())


def container(service: dict[str, Any]) -> dict[str, Any]:
    """Return the only container of a Service."""
    (only,) = service["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def variables(service: dict[str, Any]) -> dict[str, str]:
    """Return the environment of a Service."""
    return environment(container(service))


def given(service: dict[str, Any], **more: str) -> dict[str, str]:
    """Return the settings of a Service, and what a secret and a binding add."""
    own = {name: value for name, value in variables(service).items() if name not in FRAMEWORK}
    return {**own, **SECRET["stringData"], **more}


def references(node: object) -> Iterator[dict[str, str]]:
    """Yield the references in a document."""
    match node:
        case {"ref": dict(ref)}:
            yield ref
        case {"subject": dict(ref), **rest}:
            yield ref
            yield from references(rest)
        case dict():
            for value in node.values():
                yield from references(value)
        case list():
            for value in node:
                yield from references(value)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_references_lead_to_objects(overlay: Path) -> None:
    """Sinks, subjects, subscribers and brokers exist, under the apiVersion that they are named with."""
    objects = render(overlay)
    known = {(other["apiVersion"], other["kind"], other["metadata"]["name"]) for other in objects}
    for document in objects:
        spec = document.get("spec", {})
        for ref in references(spec):
            assert (ref["apiVersion"], ref["kind"], ref["name"]) in known
        if document["kind"] == "Trigger":
            assert ("eventing.knative.dev/v1", "Broker", spec["broker"]) in known


# --- times


@pytest.mark.parametrize("trigger", [each for each in TRIGGERS if "delivery" in each["spec"]], ids=label)
def test_time_budgets_are_nested(trigger: dict[str, Any]) -> None:
    """The function gives up before the broker does, and the broker before the platform cuts the request."""
    service = find(OBJECTS, "Service", trigger["spec"]["subscriber"]["ref"]["name"])
    assert budget_errors(service, trigger, timedelta(seconds=50)) == []


@pytest.mark.parametrize(("budget", "attempt", "whole"), [("60s", "PT60S", 90), ("50s", "PT90S", 90)])
def test_time_budgets_out_of_step_are_found(budget: str, attempt: str, whole: int) -> None:
    """Each pair of neighbours is compared."""
    only = {"env": [{"name": "AUTOSTOP_DEADLINE", "value": budget}]}
    service = {"kind": "Service", "spec": {"template": {"spec": {"timeoutSeconds": whole, "containers": [only]}}}}
    trigger = {"kind": "Trigger", "spec": {"delivery": {"timeout": attempt}}}
    assert len(budget_errors(service, trigger, timedelta(0))) == 1


def _pauses(delivery: dict[str, Any], first: int) -> timedelta:
    """All waits together, if the broker counts from `first`: the one made of channels does from 0, others from 1."""
    assert delivery["backoffPolicy"] == "linear"
    counts = range(first, first + int(delivery["retry"]))
    return sum((iso_duration(delivery["backoffDelay"]) * count for count in counts), timedelta(0))


@pytest.mark.parametrize("document", [*TRIGGERS, BROKER], ids=label)
def test_retries_outlast_an_outage_and_dead_letters_do_not_come_back(document: dict[str, Any]) -> None:
    """If each attempt fails at once, the last one comes more than ten minutes after the first.

    The dead letter sink is the log, not the function or a broker, so a dead letter cannot start again.
    """
    delivery = document["spec"].get("delivery") or BROKER["spec"]["delivery"]
    assert _pauses(delivery, first=0) > OUTAGE
    sink = delivery["deadLetterSink"]
    assert (sink["ref"]["kind"], sink["ref"]["name"], sink["uri"]) == ("Service", "bms-autostop-log", "/dead-letters")


def test_retries_end_before_the_event_is_too_old() -> None:
    """Even if every try takes its whole time, the last one ends while the event may be acted on."""
    delivery = TRIGGER["spec"]["delivery"]
    whole = _pauses(delivery, first=1) + (delivery["retry"] + 1) * iso_duration(delivery["timeout"])
    assert whole < duration(variables(SERVICE)["AUTOSTOP_MAX_EVENT_AGE"])


# --- subscribers

STOP, KEPT, LOGGED = "bms-autostop", "bms-autostop-keep", {"bms-autostop-chat", "bms-autostop-results"}


def _subscribers(objects: list[dict[str, Any]], type_: str) -> set[str]:
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": type_}
    triggers = [each for each in objects if each["kind"] == "Trigger"]
    return {each["metadata"]["name"] for each in triggers if matches(each["spec"].get("filters", []), event)}


@pytest.mark.parametrize(
    ("type_", "wanted"),
    [
        *((type_, {STOP}) for type_ in (STOP_REQUESTED, STOP_APPROVED, PING)),
        # What needs a person raises an alert as well.
        *(
            (type_, LOGGED | ({"bms-autostop-failures"} if type_.endswith(("failed.v1", "refused.v1")) else set()))
            for type_ in sorted(RESULTS)
        ),
        # A broker may be shared.
        *((type_, set()) for type_ in ("io.github.bms-autostop.other.v1", "com.example.x", f"{PING}2")),
    ],
)
def test_events_reach_their_subscribers_and_results_never_a_function(type_: str, wanted: set[str]) -> None:
    """The function cannot call itself, and a stop request reaches nothing else."""
    assert _subscribers(OBJECTS, type_) == wanted
    assert not wanted or _subscribers(WITH_KEEPS, type_) == wanted


def test_keep_requests_reach_the_function_that_keeps_alone() -> None:
    """In the overlay that has it."""
    assert _subscribers(WITH_KEEPS, KEEP_REQUESTED) == {KEPT}


# --- services


@pytest.mark.parametrize("service", SERVICES, ids=label)
def test_container_has_no_more_rights_than_it_needs(service: dict[str, Any]) -> None:
    """No root, no new privileges, no capabilities, nothing to write but what is mounted, no API token.

    Nothing is reachable from outside the cluster.
    """
    assert service["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"
    revision = service["spec"]["template"]["spec"]
    assert container(service)["securityContext"] == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert revision["automountServiceAccountToken"] is False
    assert revision["serviceAccountName"] == "bms-autostop"
    assert "memory" in container(service)["resources"]["limits"]
    assert int(service["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"]) >= 1


@pytest.mark.parametrize("service", FUNCTIONS, ids=label)
def test_function_has_a_temporary_folder_probes_and_a_thread_for_them(service: dict[str, Any]) -> None:
    """The root file system is read-only. Readiness is about what the function needs, liveness about the process."""
    mounts = {mount["name"]: mount["mountPath"] for mount in container(service)["volumeMounts"]}
    assert {volume["name"] for volume in service["spec"]["template"]["spec"]["volumes"]} == set(mounts)
    assert list(mounts.values()) == ["/tmp"]
    ready, alive = container(service)["readinessProbe"], container(service)["livenessProbe"]
    assert (ready["httpGet"], alive["httpGet"]) == ({"path": "/readyz"}, {"path": "/healthz"})
    assert min(ready["periodSeconds"], alive["periodSeconds"]) >= 10
    assert int(variables(service)["THREADS"]) > service["spec"]["template"]["spec"]["containerConcurrency"]


@pytest.mark.parametrize("service", SERVICES, ids=label)
def test_network_policy_names_the_service(service: dict[str, Any]) -> None:
    """No pod is forgotten, on the way in or out."""
    for name in ("bms-autostop-in", "bms-autostop-out"):
        (expression,) = find(WITH_KEEPS, "NetworkPolicy", name)["spec"]["podSelector"]["matchExpressions"]
        assert expression["key"] == "serving.knative.dev/service"
        assert service["metadata"]["name"] in expression["values"]


def test_metadata_services_are_out_of_reach() -> None:
    """Their addresses hand out a machine's credentials."""
    blocks = [
        peer["ipBlock"]
        for rule in find(OBJECTS, "NetworkPolicy", "bms-autostop-out")["spec"]["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    assert blocks
    assert all("169.254.0.0/16" in block["except"] for block in blocks)


def _uncommented(text: str, first: str) -> str:
    """A file with the commented block that begins with `first` uncommented, as a reader would do it."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip() == f"# {first}")
    for number in itertools.count(at):
        if number == len(lines) or not lines[number].lstrip().startswith("# "):
            return "\n".join(lines) + "\n"
        lines[number] = lines[number].replace("# ", "", 1)
    raise AssertionError


def test_commented_rule_lets_the_function_reach_a_collector() -> None:
    """Uncommented as it stands the policy is valid, and names the port of OTLP over HTTP."""
    text = (BASE / "network-policy.yaml").read_text()
    assert "4318" not in str(documents(text))
    policy = next(
        each for each in documents(_uncommented(text, "- to:")) if each["metadata"]["name"] == "bms-autostop-out"
    )
    assert schema_errors(policy) == []
    rule = policy["spec"]["egress"][-1]
    assert [port["port"] for port in rule["ports"]] == [4318]
    assert rule["to"][0]["namespaceSelector"]


def test_names_are_resolved_on_either_port_of_dns() -> None:
    """A policy sees the port of the pods, which is 5353 on OpenShift."""
    rule = find(OBJECTS, "NetworkPolicy", "bms-autostop-out")["spec"]["egress"][0]
    assert "to" not in rule
    ports = {(port["port"], port["protocol"]) for port in rule["ports"]}
    assert ports == {(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")}


def test_prometheus_can_read_the_metrics_of_the_log() -> None:
    """One instance is always there, on the port and path of its annotations, and a policy lets Prometheus in."""
    annotations = find(OBJECTS, "Service", "bms-autostop-log")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/min-scale"] == "1"
    assert (annotations["prometheus.io/port"], annotations["prometheus.io/path"]) == ("8080", "/metrics")
    policy = find(OBJECTS, "NetworkPolicy", "bms-autostop-metrics")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"serving.knative.dev/service": "bms-autostop-log"}
    assert policy["ingress"][0]["ports"] == [{"port": 8080, "protocol": "TCP"}]


def test_schedule_may_have_a_selector_in_place_of_ids() -> None:
    """The commented data is what the schema of stop requests takes."""
    text = (PRODUCTION / "servers.yaml").read_text()
    (source,) = documents(_uncommented(text, "data: |"))
    data = json.loads(source["spec"]["data"])
    assert set(data) == {"selector", "reason"}
    assert event_violations("stop.requested.v1.json", data) == []


def test_the_notice_is_about_the_same_servers_and_for_the_time_of_the_stop() -> None:
    """In the base and in production: earlier than the schedule by what `notice_for` says."""
    for objects in (OBJECTS, render(KNATIVE / "base")):
        stop, notice = (find(objects, "PingSource", name)["spec"] for name in ("weekday-evening", "weekday-notice"))
        asked, noticed = json.loads(stop["data"]), json.loads(notice["data"])
        assert noticed == {**asked, "dry_run": True, "notice_for": "1h"}
        assert event_violations("stop.requested.v1.json", noticed) == []
        assert (stop["schedule"], notice["schedule"]) == ("0 20 * * 1-5", "0 19 * * 1-5")
        assert (notice["timezone"], notice["sink"]) == (stop["timezone"], stop["sink"])


# --- broker


def test_broker_is_made_of_a_channel_that_the_manifests_name() -> None:
    """Whatever the cluster's default is: the config is there, in the broker's namespace, and names a channel."""
    broker = find(OBJECTS, "Broker", "bms-autostop")
    config = broker["spec"]["config"]
    assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
    data = find(OBJECTS, "ConfigMap", config["name"])["data"]
    assert yaml.safe_load(data["channel-template-spec"])["kind"] == "InMemoryChannel"
    assert broker["metadata"]["annotations"][ASYNC_ANNOTATION] == "true"


def test_kafka_overlay_has_a_durable_class_and_its_config() -> None:
    """And nothing of the in-memory channel; all else is as in production."""
    objects = render(KAFKA)
    broker = find(objects, "Broker", "bms-autostop")
    assert broker["metadata"]["annotations"] == {CLASS_ANNOTATION: "Kafka"}
    data = find(objects, "ConfigMap", broker["spec"]["config"]["name"])["data"]
    assert set(data) == {"bootstrap.servers", "default.topic.partitions", "default.topic.replication.factor"}
    assert all(isinstance(value, str) for value in data.values())
    changed = {"Broker", "ConfigMap"}
    assert [each for each in objects if each["kind"] not in changed] == [
        each for each in OBJECTS if each["kind"] not in changed
    ]


def test_readme_says_what_each_broker_means_for_a_chat() -> None:
    """With the figures that were observed, and what to set."""
    (section,) = re.findall(r"^\*\*Which broker\.\*\*.*?(?=^\*\*)", README, re.MULTILINE | re.DOTALL)
    for word in ("synchronous", "async-handler", "production-kafka", "AUTOSTOP_WAIT=0", "3 seconds", "drop repeats"):
        assert word in " ".join(section.split()), word


# --- settings


@pytest.mark.parametrize("objects", [OBJECTS, WITH_OIDC], ids=["production", "oidc"])
def test_settings_are_accepted_by_the_functions(objects: list[dict[str, Any]]) -> None:
    """Each would start with what the manifests, the example secret and the binding give it.

    All producers and chats are off before their secrets are filled in.
    """
    sink = {"K_SINK": "http://broker.example/"}
    stop = stop_settings.from_environ(given(find(objects, "Service", "bms-autostop"), **sink))
    assert (stop.callers.inbound_auth is InboundAuth.OIDC) is (objects is WITH_OIDC)
    webhook = variables(find(objects, "Service", "bms-autostop-webhook"))
    webhook_settings.from_environ({name: value for name, value in webhook.items() if name not in FRAMEWORK} | sink)
    chat = variables(find(objects, "Service", "bms-autostop-chat"))
    chat = {name: value for name, value in chat.items() if name not in FRAMEWORK}
    assert notify_settings.from_environ(chat).webhooks == {}


def test_the_first_deployment_stops_nothing() -> None:
    """An overlay that is applied as it is makes a dry run."""
    for overlay in OVERLAYS:
        assert variables(find(render(overlay), "Service", "bms-autostop"))["AUTOSTOP_DRY_RUN"] == "true"


def test_example_secrets_are_those_the_services_read_and_hold_no_secret() -> None:
    """They have the name that the service reads, and placeholders under names that it knows.

    Secrets of producers and chats are optional.
    """
    (external,) = documents((KNATIVE / "external-secret.example.yaml").read_text())
    name = SECRET["metadata"]["name"]
    assert container(SERVICE)["envFrom"] == [{"secretRef": {"name": name}}]
    assert external["spec"]["target"]["name"] == name
    for variable, value in SECRET["stringData"].items():
        assert variable.startswith("OS_")
        assert value == "REPLACE-ME" or (variable == "OS_AUTH_URL" and "example.invalid" in value)
    for name in ("bms-autostop-webhook", "bms-autostop-chat"):
        service = find(OBJECTS, "Service", name)
        assert container(service)["envFrom"] == [{"secretRef": {"name": name, "optional": True}}]


def test_image_is_named_in_one_place_and_never_latest() -> None:
    """The base leaves the image to the overlay, which gives it a version."""
    for service in SERVICES:
        name, _, tag = container(service)["image"].rpartition(":")
        assert name == "example.invalid/bms-autostop"
        assert tag != "latest"


# --- keeps


def test_keeps_have_a_function_and_a_login_of_their_own() -> None:
    """One instance, valid settings, and the Secret of no other service."""
    assert container(KEEP)["envFrom"] == [{"secretRef": {"name": "bms-autostop-keep-cloud"}}]
    assert "bms-autostop-keep-cloud" not in json.dumps([each for each in SERVICES if each is not KEEP])
    assert KEEP["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"] == "1"
    assert variables(KEEP)["FUNCTION_TARGET"] == "keep_servers"
    read = keep_settings.from_environ(given(KEEP, K_SINK="http://broker.example/"))
    assert budget_errors(KEEP, find(WITH_KEEPS, "Trigger", "bms-autostop-keep"), read.deadline) == []


# --- OIDC


@pytest.mark.parametrize("name", ["bms-autostop", "bms-autostop-chat"])
def test_oidc_says_the_same_on_both_sides(name: str) -> None:
    """What the trigger asks a token for is what the function wants, and its subject is that trigger."""
    own = variables(find(WITH_OIDC, "Service", name))
    audience = find(WITH_OIDC, "Trigger", name)["spec"]["subscriber"]["audience"]
    assert own["AUTOSTOP_INBOUND_AUTH"] == "oidc"
    assert own["AUTOSTOP_OIDC_AUDIENCE"] == audience == f"serving.knative.dev/service/bms-autostop/{name}"
    mounts = {
        mount["name"]: mount["mountPath"] for mount in container(find(WITH_OIDC, "Service", name))["volumeMounts"]
    }
    files = {own["AUTOSTOP_OIDC_CA"], own["AUTOSTOP_OIDC_TOKEN_FILE"]}
    assert files == {f"{mounts['issuer']}/ca.crt", f"{mounts['issuer']}/token"}
    subject = f"{name}-oidc-eventing.knative.dev-trigger"
    assert own["AUTOSTOP_OIDC_SUBJECTS"] == f"system:serviceaccount:bms-autostop:{subject}"
    assert len(subject) <= 63


def test_variables_have_names_of_settings() -> None:
    """No setting of the functions is misspelt, with OIDC or without."""
    known = {setting.name for setting in declared()} | FRAMEWORK
    for service in SERVICES + [each for each in WITH_OIDC if each["kind"] == "Service"]:
        for name in variables(service):
            assert name in known or name == "ALERTMANAGER_URL"

"""What the webhooks of Knative refuse and is not in a schema, and what the function and its manifests must agree on.

The rules are those of Knative Serving 1.23 and Eventing 1.22.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from handler.settings import env
from tests.deploy.cron import cron_fault
from tests.deploy.schemas import label
from tests.test_events_folder import schema_violations as event_violations

_RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}
_RESERVED_ENV = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
_VOLUMES = {"name", "secret", "configMap", "projected", "emptyDir"}
_MOST_SECONDS = 600
_SCALING = "autoscaling.knative.dev/"
_BOUNDS = {"min-scale", "max-scale", "initial-scale", "target", "window", "scale-down-delay", "target-burst-capacity"}
_FILTERS = {"exact", "prefix", "suffix", "all", "any", "not", "cesql"}
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def iso_duration(text: str) -> timedelta:
    """An ISO 8601 duration such as `PT45S`.

    Raises:
        ValueError: it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise ValueError(f"{text!r} must be an ISO 8601 duration")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def environment(container: dict[str, Any]) -> dict[str, str]:
    """The variables that a container sets itself."""
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def rule_faults(document: dict[str, Any]) -> list[str]:
    """What a webhook would refuse in one object."""
    checks: dict[tuple[str, str], Callable[[dict[str, Any]], Iterator[str]]] = {
        ("serving.knative.dev/v1", "Service"): _service,
        ("sources.knative.dev/v1", "PingSource"): _ping_source,
        ("sources.knative.dev/v1", "SinkBinding"): _sink_binding,
        ("eventing.knative.dev/v1", "Trigger"): _trigger,
        ("eventing.knative.dev/v1", "Broker"): lambda spec: _delivery(spec.get("delivery", {})),
    }
    check = checks.get((document["apiVersion"], document["kind"]))
    found = [*(check(document["spec"]) if check else ())]
    if document["kind"] == "Service":
        own = document["metadata"].get("annotations", {})
        found += [f"{key} belongs on the template" for key in own if key.startswith(_SCALING)]
    return [f"{label(document)}: {fault}" for fault in found]


def budget_faults(service: dict[str, Any], trigger: dict[str, Any], default_deadline: timedelta) -> list[str]:
    """Budget < delivery.timeout < timeoutSeconds: each waits longer than the one inside it."""
    revision = service["spec"]["template"]["spec"]
    settings = environment(revision["containers"][0])
    budget = env.duration(settings["AUTOSTOP_DEADLINE"]) if "AUTOSTOP_DEADLINE" in settings else default_deadline
    attempt = iso_duration(trigger["spec"]["delivery"]["timeout"])
    whole = timedelta(seconds=revision.get("timeoutSeconds", 300))
    found = []
    if budget >= attempt:
        found.append(f"{label(trigger)}: a try ends after {attempt}, and the function may take {budget}")
    if attempt >= whole:
        found.append(f"{label(service)}: a request is cut after {whole}, and a try may take {attempt}")
    return found


def _service(spec: dict[str, Any]) -> Iterator[str]:
    template = spec["template"]
    for key, value in template.get("metadata", {}).get("annotations", {}).items():
        if key.startswith(_SCALING):
            if not isinstance(value, str):
                yield f"{key} must be a string"
            elif key.removeprefix(_SCALING) not in _BOUNDS:
                yield f"{key} is not known"
            elif key.endswith("-scale") and not value.isdecimal():
                yield f"{key} must be an integer"
    revision = template["spec"]
    yield from _times(revision)
    for banned in ("securityContext", "nodeSelector", "affinity", "tolerations", "initContainers"):
        if banned in revision:
            yield f"{banned} of the pod is off unless the operator switched it on"
    mounted = {mount["name"] for each in revision["containers"] for mount in each.get("volumeMounts", [])}
    for volume in revision.get("volumes", []):
        if volume["name"] not in mounted:
            yield f"volume {volume['name']} is not mounted"
        if not set(volume) <= _VOLUMES:
            yield f"volume {volume['name']} is of a kind that is off"
    for container in revision["containers"]:
        yield from _container(container)


def _times(revision: dict[str, Any]) -> Iterator[str]:
    seconds = revision.get("timeoutSeconds", 300)
    if not 0 < seconds <= _MOST_SECONDS:
        yield f"timeoutSeconds is over the cluster's usual {_MOST_SECONDS}"
    for name in ("responseStartTimeoutSeconds", "idleTimeoutSeconds"):
        if revision.get(name, 0) > seconds:
            yield f"{name} is longer than timeoutSeconds"
    if not 0 <= revision.get("containerConcurrency", 0) <= 1000:
        yield "containerConcurrency is not from 0 to 1000"


def _container(container: dict[str, Any]) -> Iterator[str]:
    ports = container.get("ports", [])
    if len(ports) > 1:
        yield "there is more than one port"
    for port in ports:
        if port.get("containerPort") in _RESERVED_PORTS:
            yield f"port {port['containerPort']} is reserved"
        if port.get("name", "http1") not in ("http1", "h2c"):
            yield "a port is called http1 or h2c"
    for name in sorted(_RESERVED_ENV & {entry["name"] for entry in container.get("env", [])}):
        yield f"{name} is reserved"
    for entry in container.get("env", []):
        if "fieldRef" in entry.get("valueFrom", {}):
            yield f"{entry['name']}: fieldRef is off unless the operator switched it on"
    for name in ("readinessProbe", "livenessProbe"):
        probe = container.get(name, {})
        if "port" in probe.get("httpGet", {}):
            yield f"{name}: leave the port out"
    ready = container.get("readinessProbe", {})
    if ready and not ready.get("periodSeconds") and {"failureThreshold", "timeoutSeconds"} & set(ready):
        yield "readinessProbe: failureThreshold and timeoutSeconds need a periodSeconds"


def _ping_source(spec: dict[str, Any]) -> Iterator[str]:
    fault = cron_fault(spec.get("schedule", "* * * * *"))
    if fault:
        yield f"schedule: {fault}"
    try:
        ZoneInfo(spec.get("timezone") or "?")
    except (ZoneInfoNotFoundError, ValueError):
        yield "timezone: must be an IANA name; without one it is the zone of some pod"
    yield from _destination("sink", spec.get("sink", {}))
    if "data" in spec and "dataBase64" in spec:
        yield "data and dataBase64 exclude each other"
    if spec.get("contentType") != "application/json":
        yield "contentType: the function reads JSON"
        return
    try:
        data = json.loads(spec.get("data", ""))
    except ValueError:
        data = None
    if not isinstance(data, dict):
        yield "data must be a JSON object"
        return
    for fault in event_violations("stop.requested.v1.json", data):
        yield f"data: {fault}"


def _sink_binding(spec: dict[str, Any]) -> Iterator[str]:
    subject = spec.get("subject", {})
    if ("name" in subject) == ("selector" in subject):
        yield "subject: either a name or a selector"
    yield from _destination("sink", spec.get("sink", {}))


def _trigger(spec: dict[str, Any]) -> Iterator[str]:
    if not spec.get("broker"):
        yield "no broker"
    if "filter" in spec and "filters" in spec:
        yield "filter is ignored beside filters"
    for each in spec.get("filters", []):
        yield from _filter(each)
    yield from _destination("subscriber", spec.get("subscriber", {}))
    yield from _delivery(spec.get("delivery", {}))


def _filter(dialect: object) -> Iterator[str]:
    if not isinstance(dialect, dict) or len(dialect) != 1 or not set(dialect) <= _FILTERS:
        yield f"filters: one of {sorted(_FILTERS)} is needed, not {dialect!r}"
        return
    ((name, value),) = dialect.items()
    if name in ("all", "any"):
        for each in value:
            yield from _filter(each)
    elif name == "not":
        yield from _filter(value)
    elif name == "cesql":
        return
    elif not value or not all(re.fullmatch("[a-z0-9]{1,20}", key) and isinstance(value[key], str) for key in value):
        yield f"filters: {name} wants attributes with texts"


def _delivery(delivery: dict[str, Any]) -> Iterator[str]:
    for name in ("backoffDelay", "timeout"):
        try:
            iso_duration(delivery.get(name, "PT1S"))
        except ValueError as fault:
            yield f"delivery.{name}: {fault}"
    if delivery.get("backoffPolicy", "linear") not in ("linear", "exponential"):
        yield "delivery.backoffPolicy is linear or exponential"
    if delivery.get("retry", 0) < 0:
        yield "delivery.retry is negative"
    if "retryAfterMax" in delivery:
        yield "delivery.retryAfterMax is refused unless the operator switched it on"
    if "deadLetterSink" in delivery:
        yield from _destination("delivery.deadLetterSink", delivery["deadLetterSink"])


def _destination(name: str, destination: dict[str, Any]) -> Iterator[str]:
    ref, uri = destination.get("ref"), destination.get("uri")
    if ref is None and uri is None:
        yield f"{name}: neither ref nor uri"
    if ref is not None:
        missing = {"apiVersion", "kind", "name"} - set(ref)
        if missing:
            yield f"{name}.ref: no {sorted(missing)}"
        if uri is not None and re.match(r"\w+:", uri):
            yield f"{name}: beside a ref the uri is relative"

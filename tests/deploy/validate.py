"""`python -m tests.deploy.validate`, a part of `make check`: what is wrong with the manifests of Knative.

An object is checked against the closed schema of its kind, and against what the webhooks of Knative Serving 1.23 and
Eventing 1.22 refuse without a schema. check-jsonschema's vendored schemas are used for other files.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jsonschema import Draft202012Validator

from handler.settings import env
from tests.deploy.kustomize import OVERLAYS, label, render
from tests.test_events_folder import schema_violations as event_violations

SCHEMAS = Path(__file__).parent / "schemas"

_RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}
_RESERVED_ENV = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
_VOLUMES = {"name", "secret", "configMap", "projected", "emptyDir"}
_MOST_SECONDS = 600
_SCALING = "autoscaling.knative.dev/"
_BOUNDS = {"min-scale", "max-scale", "initial-scale", "target", "window", "scale-down-delay", "target-burst-capacity"}
_FILTERS = {"exact", "prefix", "suffix", "all", "any", "not", "cesql"}
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_DESCRIPTORS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
# Lowest and highest number of each field of a cron schedule, and the names of the numbers.
_CRON_FIELDS: list[tuple[int, int, list[str]]] = [
    (0, 59, []),
    (0, 59, []),
    (0, 23, []),
    (1, 31, []),
    (1, 12, ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
]
_CRON_RANGE = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?")


def vendored_schema_errors(name: str, *files: Path) -> str:
    """Return what one of check-jsonschema's vendored schemas finds wrong with files; empty if nothing."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", "--verbose"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def schema_errors(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with an object by the schema of its kind; a kind without a schema is wrong."""
    kind = f"{document.get('apiVersion', '')}_{document.get('kind', '')}".replace("/", "_")
    validator = _validators().get(kind)
    if validator is None:
        return [f"{label(document)}: no schema for {kind}"]
    found = [*validator.iter_errors(document)]
    for holder in (document, document.get("spec", {}).get("template", {})):
        # Knative's schemas leave metadata open.
        found += _validators()["metadata"].iter_errors(holder.get("metadata", {}))
    return [f"{label(document)}: {error.json_path}: {error.message}" for error in found]


@cache
def _validators() -> dict[str, Draft202012Validator]:
    schemas = {path.stem: json.loads(path.read_text()) for path in SCHEMAS.glob("*/*.json")}
    schemas["metadata"] = schemas["v1_Secret"]["properties"]["metadata"]
    return {kind: Draft202012Validator(schema) for kind, schema in schemas.items()}


def rule_errors(document: dict[str, Any]) -> list[str]:
    """Return what a webhook would refuse in one object."""
    spec = document.get("spec", {})
    found: Iterator[str] = iter(())
    match document["apiVersion"], document["kind"]:
        case "serving.knative.dev/v1", "Service":
            found = _service(document)
        case "sources.knative.dev/v1", "PingSource":
            found = _ping_source(spec)
        case "sources.knative.dev/v1", "SinkBinding":
            found = _sink_binding(spec)
        case "eventing.knative.dev/v1", "Trigger":
            found = _trigger(spec)
        case "eventing.knative.dev/v1", "Broker":
            found = _delivery(spec.get("delivery", {}))
    return [f"{label(document)}: {error}" for error in found]


def iso_duration(text: str) -> timedelta:
    """Parse an ISO 8601 duration such as `PT45S`; raise ValueError if it is none."""
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise ValueError(f"{text!r} must be an ISO 8601 duration")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Return the variables that a container sets itself."""
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def budget_errors(service: dict[str, Any], trigger: dict[str, Any], default_deadline: timedelta) -> list[str]:
    """Check that budget < delivery.timeout < timeoutSeconds: each waits longer than the one inside it."""
    revision = service["spec"]["template"]["spec"]
    settings = environment(revision["containers"][0])
    budget = env.duration(settings["AUTOSTOP_DEADLINE"]) if "AUTOSTOP_DEADLINE" in settings else default_deadline
    attempt = iso_duration(trigger["spec"]["delivery"]["timeout"])
    whole = timedelta(seconds=revision.get("timeoutSeconds", 300))
    found = []
    if budget >= attempt:
        found.append(f"{label(trigger)}: an attempt ends after {attempt}, and the function may take {budget}")
    if attempt >= whole:
        found.append(f"{label(service)}: a request ends after {whole}, and an attempt may take {attempt}")
    return found


def cron_error(schedule: str) -> str | None:
    """Return what is wrong with a schedule of a PingSource: five fields, six with seconds in front, or a descriptor."""
    if schedule.startswith("@"):
        return None if schedule in _DESCRIPTORS else f"{schedule.split()[0]} is not supported"
    if "TZ=" in schedule:
        return "the time zone has a field of its own"
    parts = schedule.split()
    if len(parts) not in (5, 6):
        return f"must have 5 fields, not {len(parts)}"
    for part, (low, high, names) in zip(parts, _CRON_FIELDS[-len(parts) :], strict=True):
        for item in part.split(","):
            found = _CRON_RANGE.fullmatch(item)
            if found is None or (found[1] in ("*", "?") and found[2] is not None) or found[3] == "0":
                return f"{item!r} must be a range"
            bounds = [
                names.index(text.lower()) + low if text.lower() in names else int(text) if text.isdecimal() else -1
                for text in found.groups()[:2]
                if text not in (None, "*", "?")
            ]
            if bounds != sorted(bounds) or not all(low <= bound <= high for bound in bounds):
                return f"{item!r} must be a range within {low} and {high}"
    return None


def _service(document: dict[str, Any]) -> Iterator[str]:
    for key in document["metadata"].get("annotations", {}):
        if key.startswith(_SCALING):
            yield f"{key} belongs on the template"
    template = document["spec"]["template"]
    for key, value in template.get("metadata", {}).get("annotations", {}).items():
        if key.startswith(_SCALING):
            if not isinstance(value, str):
                yield f"{key} must be a string"
            elif key.removeprefix(_SCALING) not in _BOUNDS:
                yield f"{key} is not known"
            elif key.endswith("-scale") and not value.isdecimal():
                yield f"{key} must be an integer"
    revision = template["spec"]
    seconds = revision.get("timeoutSeconds", 300)
    if not 0 < seconds <= _MOST_SECONDS:
        yield f"timeoutSeconds is over the cluster's usual {_MOST_SECONDS}"
    for name in ("responseStartTimeoutSeconds", "idleTimeoutSeconds"):
        if revision.get(name, 0) > seconds:
            yield f"{name} is longer than timeoutSeconds"
    if not 0 <= revision.get("containerConcurrency", 0) <= 1000:
        yield "containerConcurrency is not from 0 to 1000"
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


def _container(container: dict[str, Any]) -> Iterator[str]:
    ports = container.get("ports", [])
    if len(ports) > 1:
        yield "there is more than one port"
    for port in ports:
        if port.get("containerPort") in _RESERVED_PORTS:
            yield f"port {port['containerPort']} is reserved"
        if port.get("name", "http1") not in ("http1", "h2c"):
            yield "a port is called http1 or h2c"
    for entry in container.get("env", []):
        if entry["name"] in _RESERVED_ENV:
            yield f"{entry['name']} is reserved"
        if "fieldRef" in entry.get("valueFrom", {}):
            yield f"{entry['name']}: fieldRef is off unless the operator switched it on"
    for name in ("readinessProbe", "livenessProbe"):
        if "port" in container.get(name, {}).get("httpGet", {}):
            yield f"{name}: leave the port out"
    ready = container.get("readinessProbe", {})
    if ready and not ready.get("periodSeconds") and {"failureThreshold", "timeoutSeconds"} & set(ready):
        yield "readinessProbe: failureThreshold and timeoutSeconds need a periodSeconds"


def _ping_source(spec: dict[str, Any]) -> Iterator[str]:
    if error := cron_error(spec.get("schedule", "* * * * *")):
        yield f"schedule: {error}"
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
    if isinstance(data, dict):
        yield from (f"data: {error}" for error in event_violations("stop.requested.v1.json", data))
    else:
        yield "data must be a JSON object"


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
    match name:
        case "all" | "any":
            for each in value:
                yield from _filter(each)
        case "not":
            yield from _filter(value)
        case "exact" | "prefix" | "suffix":
            names = value and all(re.fullmatch("[a-z0-9]{1,20}", key) for key in value)
            if not names or not all(isinstance(text, str) for text in value.values()):
                yield f"filters: {name} wants attributes with texts"


def _delivery(delivery: dict[str, Any]) -> Iterator[str]:
    for name in ("backoffDelay", "timeout"):
        try:
            iso_duration(delivery.get(name, "PT1S"))
        except ValueError as error:
            yield f"delivery.{name}: {error}"
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


def main() -> int:
    """Print the errors of the overlays; the exit code says whether there are any."""
    errors = [
        f"{overlay.name}: {error}"
        for overlay in OVERLAYS
        for document in render(overlay)
        for error in schema_errors(document) + rule_errors(document)
    ]
    print("\n".join(errors) if errors else f"The manifests of {len(OVERLAYS)} overlays are valid.")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())

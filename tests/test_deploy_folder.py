"""deploy/ holds together: manifests and image say what the function needs, and agree with each other."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
KNATIVE = DEPLOY / "knative"
INCOMING_TYPES = {"io.github.bms-autostop.stop.requested.v1", "dev.knative.sources.ping"}
SETTINGS = {
    "AUTOSTOP_INBOUND_AUTH",
    "AUTOSTOP_BEARER_TOKENS",
    "AUTOSTOP_API",
    "AUTOSTOP_COMPUTE_URL",
    "AUTOSTOP_BMS_URL",
    "AUTOSTOP_RESULT_SINK",
    "AUTOSTOP_EVENT_SINK",
    "AUTOSTOP_SINK_TOKEN",
    "AUTOSTOP_SOURCE",
    "AUTOSTOP_EVENT_TYPES",
    "AUTOSTOP_DRY_RUN",
    "AUTOSTOP_BARE_METAL_ONLY",
    "AUTOSTOP_PROTECT",
    "AUTOSTOP_MAX_SERVERS",
    "AUTOSTOP_MAX_EVENT_AGE",
    "AUTOSTOP_WAIT",
    "AUTOSTOP_DEADLINE",
    "AUTOSTOP_CONCURRENCY",
    "AUTOSTOP_MAX_BODY",
    "AUTOSTOP_CLOCK_TOLERANCE",
    "AUTOSTOP_WEBHOOK_ORIGINS",
    "AUTOSTOP_LOG_LEVEL",
}
LOGIN = {
    "OS_AUTH_URL",
    "OS_USERNAME",
    "OS_PASSWORD",
    "OS_USER_DOMAIN_NAME",
    "OS_USER_DOMAIN_ID",
    "OS_PROJECT_NAME",
    "OS_PROJECT_ID",
    "OS_PROJECT_DOMAIN_NAME",
    "OS_PROJECT_DOMAIN_ID",
    "OS_REGION_NAME",
    "OS_AUTH_TYPE",
    "OS_TOKEN",
    "OS_APPLICATION_CREDENTIAL_ID",
    "OS_APPLICATION_CREDENTIAL_NAME",
    "OS_APPLICATION_CREDENTIAL_SECRET",
    "OS_CLOUD",
    "OS_ACCESS_KEY",
    "OS_SECRET_KEY",
    "OS_SECURITY_TOKEN",
}
# What functions-framework itself reads.
FRAMEWORK = {"THREADS", "WORKERS", "FUNCTION_TARGET", "FUNCTION_SOURCE"}
# The fields of each kind that these manifests may use, so that a misspelt one is found.
FIELDS = {
    ("eventing.knative.dev/v1", "Broker"): {"delivery"},
    ("eventing.knative.dev/v1", "Trigger"): {"broker", "filters", "subscriber", "delivery"},
    ("sources.knative.dev/v1", "PingSource"): {"schedule", "timezone", "contentType", "data", "sink"},
    ("serving.knative.dev/v1", "Service"): {"template"},
}
DELIVERY = {"retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink"}
REVISION = {"containerConcurrency", "timeoutSeconds", "automountServiceAccountToken", "containers", "volumes"}
CONTAINER = {
    "image",
    "command",
    "args",
    "env",
    "envFrom",
    "readinessProbe",
    "livenessProbe",
    "resources",
    "securityContext",
    "volumeMounts",
}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


YAML_FILES = sorted(KNATIVE.rglob("*.yaml"))
KUSTOMIZATION = documents(KNATIVE / "kustomization.yaml")[0]
OBJECTS = [document for name in KUSTOMIZATION["resources"] for document in documents(KNATIVE / name)]


def labelled(document: dict[str, Any]) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def found(kind: str, name: str) -> dict[str, Any]:
    return next(document for document in OBJECTS if labelled(document) == f"{kind}/{name}")


SERVICE = found("Service", "bms-autostop")
REVISION_SPEC = SERVICE["spec"]["template"]["spec"]
FUNCTION = REVISION_SPEC["containers"][0]
TRIGGER = found("Trigger", "bms-autostop")
SERVICES = [document for document in OBJECTS if document["kind"] == "Service"]


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def seconds(text: str) -> float:
    """`50s`, `15m`, or ISO 8601 such as `PT60S`, in seconds."""
    match = re.fullmatch(r"(?:PT)?(\d+)([smh])", text, re.IGNORECASE)
    assert match, text
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2].lower()]


# --- Knative


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    """Each YAML file holds objects with an apiVersion and a kind."""
    assert documents(path)
    for document in documents(path):
        assert {"apiVersion", "kind"} <= set(document)


def test_kustomization_takes_every_manifest_but_the_example_secret() -> None:
    """Nothing is forgotten, and placeholders for secrets are not applied by accident."""
    present = {path.name for path in KNATIVE.glob("*.yaml")}
    assert set(KUSTOMIZATION["resources"]) == present - {"kustomization.yaml", "secret.example.yaml"}


@pytest.mark.parametrize("document", OBJECTS, ids=labelled)
def test_object_has_a_known_kind_and_only_known_fields(document: dict[str, Any]) -> None:
    """Each object is of a kind that Knative serves, and none of its fields is misspelt."""
    spec = document["spec"]
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(spec) <= FIELDS[document["apiVersion"], document["kind"]]
    assert set(spec.get("delivery", {})) <= DELIVERY
    if document["kind"] == "Service":
        revision = spec["template"]["spec"]
        assert set(revision) <= REVISION
        assert set(revision["containers"][0]) <= CONTAINER


def references(node: object) -> Iterator[dict[str, str]]:
    match node:
        case {"ref": dict(ref)}:
            yield ref
        case dict():
            for value in node.values():
                yield from references(value)
        case list():
            for value in node:
                yield from references(value)


@pytest.mark.parametrize("document", OBJECTS, ids=labelled)
def test_reference_leads_to_an_object_in_the_folder(document: dict[str, Any]) -> None:
    """Sinks, subscribers and dead letter sinks exist, under the apiVersion that they are named with."""
    known = {(other["apiVersion"], other["kind"], other["metadata"]["name"]) for other in OBJECTS}
    for ref in references(document["spec"]):
        assert (ref["apiVersion"], ref["kind"], ref["name"]) in known
    if document["kind"] == "Trigger":
        assert ("eventing.knative.dev/v1", "Broker", document["spec"]["broker"]) in known


def test_time_budgets_are_nested() -> None:
    """The function gives up before the broker does, and the broker before the platform cuts the request."""
    budget = seconds(variables(FUNCTION)["AUTOSTOP_DEADLINE"])
    attempt = seconds(TRIGGER["spec"]["delivery"]["timeout"])
    assert seconds(variables(FUNCTION)["AUTOSTOP_WAIT"]) < budget
    assert budget < attempt < REVISION_SPEC["timeoutSeconds"]


def test_retries_end_before_the_event_is_too_old() -> None:
    """Even if every attempt takes its whole time, the last one ends while the event may be acted on."""
    delivery = TRIGGER["spec"]["delivery"]
    assert delivery["backoffPolicy"] == "exponential"
    delay = seconds(delivery["backoffDelay"])
    pauses = sum(delay * 2**attempt for attempt in range(1, delivery["retry"] + 1))
    whole = pauses + (delivery["retry"] + 1) * seconds(delivery["timeout"])
    assert whole < seconds(variables(FUNCTION)["AUTOSTOP_MAX_EVENT_AGE"])


def test_trigger_lets_the_accepted_types_in_and_nothing_else() -> None:
    """The function is called for exactly the types that it takes, never for its own results."""
    (only,) = TRIGGER["spec"]["filters"]
    assert {entry["exact"]["type"] for entry in only["any"]} == INCOMING_TYPES


def test_dead_letters_do_not_come_back() -> None:
    """The dead letter sink is neither the function nor a broker, so a dead letter can't start again."""
    ref = TRIGGER["spec"]["delivery"]["deadLetterSink"]["ref"]
    assert ref["kind"] == "Service"
    assert ref["name"] != "bms-autostop"


def test_schedule_is_complete() -> None:
    """The schedule has five fields and a named time zone, sends JSON, and goes to the broker."""
    spec = found("PingSource", "weekday-evening")["spec"]
    assert len(spec["schedule"].split()) == 5
    assert spec["timezone"] == "Europe/Berlin"
    assert spec["contentType"] == "application/json"
    assert spec["sink"]["ref"]["kind"] == "Broker"
    data = json.loads(spec["data"])
    assert data["server_ids"]
    assert [str(uuid.UUID(server)) for server in data["server_ids"]] == data["server_ids"]


@pytest.mark.parametrize("document", SERVICES, ids=labelled)
def test_service_is_visible_in_the_cluster_only(document: dict[str, Any]) -> None:
    """Nothing of this is reachable from outside the cluster."""
    assert document["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"


@pytest.mark.parametrize("document", SERVICES, ids=labelled)
def test_container_has_no_more_rights_than_it_needs(document: dict[str, Any]) -> None:
    """No root, no new privileges, no capabilities, nothing to write but what is mounted, no API token."""
    revision = document["spec"]["template"]["spec"]
    context = revision["containers"][0]["securityContext"]
    assert context == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert revision["automountServiceAccountToken"] is False
    assert "memory" in revision["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("document", SERVICES, ids=labelled)
def test_scaling_is_bounded_on_the_revision(document: dict[str, Any]) -> None:
    """The scaling annotation is text and sits on the template, where Knative looks for it."""
    assert "annotations" not in document["metadata"]
    annotations = document["spec"]["template"]["metadata"]["annotations"]
    assert int(annotations["autoscaling.knative.dev/max-scale"]) >= 1
    assert all(isinstance(value, str) for value in annotations.values())


def test_function_can_write_its_temporary_files() -> None:
    """The server needs a temporary folder, and the root file system is read-only."""
    mounts = {mount["name"]: mount["mountPath"] for mount in FUNCTION["volumeMounts"]}
    assert {volume["name"] for volume in REVISION_SPEC["volumes"]} == set(mounts)
    assert list(mounts.values()) == ["/tmp"]


def test_probes_ask_the_right_paths_at_a_gentle_pace() -> None:
    """Readiness asks for the cloud login, liveness only whether the process lives; neither is frantic."""
    assert FUNCTION["readinessProbe"]["httpGet"] == {"path": "/readyz"}
    assert FUNCTION["livenessProbe"]["httpGet"] == {"path": "/healthz"}
    for probe in (FUNCTION["readinessProbe"], FUNCTION["livenessProbe"]):
        assert probe["periodSeconds"] >= 10


def test_probes_find_a_free_thread() -> None:
    """There are more threads than requests at once."""
    assert int(variables(FUNCTION)["THREADS"]) > REVISION_SPEC["containerConcurrency"]


def test_variables_are_settings_that_exist() -> None:
    """Each variable is one that the function or its framework reads, and each value is text."""
    names = variables(FUNCTION)
    assert set(names) <= SETTINGS | FRAMEWORK
    assert all(isinstance(value, str) for value in names.values())
    assert "AUTOSTOP_INBOUND_AUTH" in names


def test_the_first_deployment_stops_nothing() -> None:
    """Whoever applies the folder as it is gets a rehearsal."""
    assert variables(FUNCTION)["AUTOSTOP_DRY_RUN"] == "true"


def test_example_secret_is_the_one_the_service_reads_and_holds_no_secret() -> None:
    """The secret has the name that the service asks for, and placeholders under the login's names."""
    (secret,) = documents(KNATIVE / "secret.example.yaml")
    assert FUNCTION["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    assert set(secret["stringData"]) <= LOGIN
    for name, value in secret["stringData"].items():
        assert value == "REPLACE-ME" or (name == "OS_AUTH_URL" and "example.invalid" in value)


def test_image_is_named_in_one_place_and_never_latest() -> None:
    """The manifests leave the image to kustomize, which gives it a version."""
    (image,) = KUSTOMIZATION["images"]
    for document in SERVICES:
        assert document["spec"]["template"]["spec"]["containers"][0]["image"] == image["name"]
    assert image["newName"].startswith("example.invalid/")
    assert image["newTag"] != "latest"


def test_program_in_the_log_service_compiles() -> None:
    """The small program that logs events is Python."""
    container = found("Service", "bms-autostop-log")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-c"]
    (program,) = container["args"]
    compile(program, "event-log.yaml", "exec")


# --- image


def instructions(text: str) -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest), with continued lines joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", kept)
    lines = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(line[0].upper(), line[1]) for line in lines]


DOCKERFILE = instructions((DEPLOY / "Dockerfile").read_text())
FINAL = DOCKERFILE[max(index for index, (name, _) in enumerate(DOCKERFILE) if name == "FROM") :]


def last(name: str) -> str:
    return [rest for instruction, rest in FINAL if instruction == name][-1]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for name, rest in FINAL if name == "ENV" for pair in rest.split())


def test_image_has_two_stages_and_a_pinned_python() -> None:
    """The base is one slim Python 3.12 for both stages, with a tag that is not latest."""
    bases = [rest.split()[0] for name, rest in DOCKERFILE if name == "FROM"]
    (default,) = [rest.split("=", 1)[1] for name, rest in DOCKERFILE if name == "ARG" and "PYTHON_IMAGE" in rest]
    assert bases == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]
    assert re.fullmatch(r"python:3\.12[.\d]*-slim-\w+", default)


def test_image_checks_the_hashes_of_its_dependencies() -> None:
    """All comes from the locks, hashes checked, or is built here without an index; no index is named."""
    runs = [part for name, rest in DOCKERFILE if name == "RUN" for part in rest.split("&&")]
    pips = [part for part in runs if " pip " in part]
    assert [part.split()[-1] for part in pips] == ["requirements.lock", "requirements-build.lock", ".", "bms-autostop"]
    for rest in pips:
        assert "--require-hashes" in rest or "--no-index" in rest
        assert "--no-deps" in rest
        assert "index-url" not in rest
        assert "--trusted-host" not in rest


def test_image_runs_as_a_number_that_is_not_root() -> None:
    """USER is numeric, so that a cluster can see that it is not root."""
    match = re.fullmatch(r"(\d+):(\d+)", last("USER"))
    assert match
    assert int(match[1]) > 0


def test_image_installs_nothing_in_its_last_stage() -> None:
    """The last stage only copies what the first one made."""
    assert [rest for name, rest in FINAL if name in ("RUN", "ADD")] == []
    assert all(rest.startswith("--from=build ") for name, rest in FINAL if name == "COPY")


def test_image_starts_the_function() -> None:
    """Target, source and port are set, the image has that source, and the command is an exec form."""
    env = environment()
    assert env["FUNCTION_TARGET"] == "stop_servers"
    assert env["FUNCTION_SOURCE"] == "/app/handler/main.py"
    assert env["PORT"] == "8080"
    assert "/app /app" in [rest.removeprefix("--from=build ") for name, rest in FINAL if name == "COPY"]
    assert json.loads(last("CMD")) == ["functions-framework"]


def test_image_writes_only_to_the_temporary_folder() -> None:
    """No bytecode is written at run time, since it is all there, and HOME is a place that is writable."""
    assert environment()["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment()["HOME"] == "/tmp"
    place = environment()["PYTHONPYCACHEPREFIX"]
    assert any(f"PYTHONPYCACHEPREFIX={place} " in rest and "compileall" in rest for _, rest in DOCKERFILE)
    assert f"--from=build {place} {place}" in [rest for name, rest in FINAL if name == "COPY"]


def test_image_health_check_needs_no_shell() -> None:
    """The health check is Python in exec form and asks /healthz."""
    command = json.loads(last("HEALTHCHECK").split("CMD", 1)[1])
    assert command[:2] == ["python", "-c"]
    assert "/healthz" in command[2]
    compile(command[2], "HEALTHCHECK", "exec")


def test_image_holds_no_secret() -> None:
    """No cloud login and no setting of the function is baked in, by ARG or by ENV."""
    for name, rest in DOCKERFILE:
        if name in ("ARG", "ENV"):
            assert not re.search(r"\b(OS|AUTOSTOP)_", rest)


def test_image_is_labelled() -> None:
    """The image says what it is, its licence and its version."""
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", last("LABEL")))
    assert {"title", "description", "licenses", "version", "revision"} <= labels


def test_build_context_holds_what_is_copied_and_little_else() -> None:
    """.dockerignore shuts everything out and lets in exactly what the Dockerfile copies."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    copied = {
        word.strip("./")
        for name, rest in DOCKERFILE
        if name == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    }
    assert {line[1:] for line in lines if line.startswith("!")} == copied

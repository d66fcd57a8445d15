"""deploy/plain and deploy/cloud-run: what they say is what the function and the platform understand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from handler.settings import keep_servers as keep_settings
from handler.settings import stop_servers as stop_settings
from tests.conftest import ROOT
from tests.test_events_folder import schema_violations as event_violations

DEPLOY = ROOT / "deploy"
PAGES = {name: (DEPLOY / name / "README.md").read_text() for name in ("cloud-run", "compose", "functiongraph", "plain")}
# The commands of each page.
COMMANDS = {name: "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)) for name, text in PAGES.items()}
UNIT = DEPLOY / "plain" / "bms-autostop.service"
EXAMPLE = DEPLOY / "plain" / "bms-autostop.env.example"
RUN: dict[str, Any] = yaml.safe_load((DEPLOY / "cloud-run" / "service.yaml").read_text())
# What functions-framework and the shell read; all else must be a setting.
_FRAMEWORK = {"THREADS"}


def _pairs(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line and line[0] != "#")


def _unit() -> dict[str, list[str]]:
    """The unit's directives; some may stand there more than once."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and line[0] not in "#[":
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


# --- systemd


def systemd_messages(unit: Path) -> list[str]:
    """Return what systemd finds wrong in a unit, whose program is not installed here. It exits 0 all the same."""
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return [line for line in done.stderr.splitlines() if unit.name in line and "is not executable" not in line]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit_has_only_directives_of_systemd(tmp_path: Path) -> None:
    """None is misspelt or in the wrong section; one that is, is found."""
    assert systemd_messages(UNIT) == []
    wrong = tmp_path / UNIT.name
    wrong.write_text(UNIT.read_text().replace("ProtectHome=", "ProtectHomes="))
    assert any("ProtectHomes" in line for line in systemd_messages(wrong))


def test_unit_has_time_to_finish_and_no_rights() -> None:
    """It is not killed before an event's budget is over, writes nowhere, and has no capability."""
    unit = _unit()
    (patience,) = unit["TimeoutStopSec"]
    assert timedelta(seconds=int(patience.removesuffix("s"))) > stop_settings.from_environ(_login()).deadline
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["DynamicUser"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert "--host 127.0.0.1" in unit["ExecStart"][0]


def _login() -> dict[str, str]:
    """The example, with what it leaves to the reader."""
    return {name: value or "filled-in-by-an-operator" for name, value in _pairs(EXAMPLE.read_text()).items()}


def test_example_of_an_environment_starts_the_function_as_a_dry_run() -> None:
    """Its names are settings, nothing is missing once it is filled in, and nothing is stopped at first."""
    assert stop_settings.from_environ(_login()).policy.dry_run
    unfilled = {name for name, value in _pairs(EXAMPLE.read_text()).items() if not value}
    assert unfilled == {"AUTOSTOP_BEARER_TOKENS", "OS_USERNAME", "OS_PASSWORD"}


def test_readme_of_systemd_copies_files_that_are_there() -> None:
    """Its commands name files of this folder, and the place that the unit starts from."""
    text = PAGES["plain"]
    for name in re.findall(r"deploy/plain/([\w.-]+)", text):
        assert (DEPLOY / "plain" / name).exists()
    assert _unit()["EnvironmentFile"][0] in text
    assert _unit()["ExecStart"][0].split("/.venv")[0] in text


# --- Cloud Run

_FIELDS: Mapping[str, set[str]] = {
    "service": {"apiVersion", "kind", "metadata", "spec"},
    "template": {"metadata", "spec"},
    "revision": {"serviceAccountName", "containerConcurrency", "timeoutSeconds", "containers"},
    "container": {"image", "ports", "env", "resources", "startupProbe", "livenessProbe"},
    "probe": {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"},
    "annotations": {
        "run.googleapis.com/ingress",
        "autoscaling.knative.dev/maxScale",
        "run.googleapis.com/startup-cpu-boost",
    },
}


def _strange(service: dict[str, Any]) -> set[str]:
    """The fields that Cloud Run is not known to have."""
    template: dict[str, Any] = service["spec"]["template"]
    (container,) = template["spec"]["containers"]
    strange: set[str] = (
        (service.keys() - _FIELDS["service"])
        | (template.keys() - _FIELDS["template"])
        | (template["spec"].keys() - _FIELDS["revision"])
        | (container.keys() - _FIELDS["container"])
        | (container["startupProbe"].keys() - _FIELDS["probe"])
        | (container["livenessProbe"].keys() - _FIELDS["probe"])
        | (service["metadata"]["annotations"].keys() - _FIELDS["annotations"])
        | (template["metadata"]["annotations"].keys() - _FIELDS["annotations"])
    )
    return strange


def _env(service: dict[str, Any]) -> list[dict[str, Any]]:
    (container,) = service["spec"]["template"]["spec"]["containers"]
    return list(container["env"])


def _settings(service: dict[str, Any]) -> dict[str, str]:
    """Return the variables that are settings."""
    pairs = {entry["name"]: entry.get("value", "from-a-secret") for entry in _env(service)}
    return {name: value for name, value in pairs.items() if name not in _FRAMEWORK}


def test_service_has_only_fields_of_cloud_run() -> None:
    """None is misspelt; one that is, is found. Annotations are text."""
    assert _strange(RUN) == set()
    wrong = yaml.safe_load((DEPLOY / "cloud-run" / "service.yaml").read_text().replace("timeoutSeconds", "timeout"))
    assert "timeout" in _strange(wrong)
    assert all(isinstance(value, str) for value in RUN["spec"]["template"]["metadata"]["annotations"].values())


def test_service_starts_the_function_as_a_dry_run() -> None:
    """Its variables are settings, none is missing, the secrets are references, and nothing is stopped at first."""
    assert stop_settings.from_environ(_settings(RUN)).policy.dry_run
    assert {entry["name"] for entry in _env(RUN) if "valueFrom" in entry} == {"OS_USERNAME", "OS_PASSWORD"}


def test_keeps_on_cloud_run_have_a_login_of_their_own() -> None:
    """One instance, valid settings, and secrets that are not those of the function that stops."""
    keep = yaml.safe_load((DEPLOY / "cloud-run" / "keep-service.yaml").read_text())
    assert _strange(keep) == set()
    settings = _settings(keep)
    assert settings.pop("FUNCTION_TARGET") == "keep_servers"
    keep_settings.from_environ(settings)
    assert keep["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/maxScale"] == "1"
    assert keep["metadata"]["annotations"]["run.googleapis.com/ingress"] == "internal"
    secrets = [json.dumps([entry for entry in _env(each) if "valueFrom" in entry]) for each in (keep, RUN)]
    assert secrets[0].count("bms-autostop-keep-") == 2
    assert "keep" not in secrets[1]


def test_times_of_cloud_run_are_nested() -> None:
    """The function gives up before Cloud Run does, and that before Pub/Sub sends the event again."""
    revision = RUN["spec"]["template"]["spec"]
    deadline = stop_settings.from_environ(_settings(RUN)).deadline.total_seconds()
    shown = re.search(r"--ack-deadline (\d+)", PAGES["cloud-run"])
    assert shown
    assert deadline < revision["timeoutSeconds"] < int(shown[1]) <= 600
    (threads,) = [entry["value"] for entry in _env(RUN) if entry["name"] == "THREADS"]
    assert int(threads) > revision["containerConcurrency"]


def test_no_caller_is_permitted_without_credentials() -> None:
    """The function asks for none here, so Cloud Run must: the service is internal, and no command opens it."""
    assert RUN["metadata"]["annotations"]["run.googleapis.com/ingress"] == "internal"
    assert "--allow-unauthenticated" not in COMMANDS["cloud-run"]
    assert "roles/run.invoker" in COMMANDS["cloud-run"]


def test_project_is_set_and_docker_logged_in_before_they_are_needed() -> None:
    """Gcloud would use the project of the last time, and a push would be refused.

    The tracked file is not edited in place: its copy with values is ignored by git.
    """
    commands = COMMANDS["cloud-run"]
    assert commands.index("gcloud config set project") < commands.index("gcloud artifacts")
    assert commands.index("gcloud auth configure-docker") < commands.index("docker push")
    assert "sed -i" not in commands
    assert "services replace service.local.yaml" in commands


def test_job_takes_ids_or_a_selector() -> None:
    """Both forms are data that the schema of stop requests takes, and the job sends what was chosen."""
    forms = re.findall(r"^(?:# )?DATA='(.*?)'", COMMANDS["cloud-run"], re.MULTILINE)
    assert [set(json.loads(form)) for form in forms] == [{"server_ids", "reason"}, {"selector", "reason"}]
    for form in forms:
        assert event_violations("stop.requested.v1.json", json.loads(form)) == []
    assert '--message-body "$DATA"' in COMMANDS["cloud-run"]


def test_the_job_for_the_notice_asks_for_a_dry_run_of_the_same_servers() -> None:
    """As a shell makes it of the data of the first job."""
    (body,) = re.findall(r'--message-body ("\$\{DATA.*?")  ', COMMANDS["cloud-run"])
    (form, *_) = re.findall(r"^DATA='(.*?)'", COMMANDS["cloud-run"], re.MULTILINE)
    script = f"DATA='{form}'; printf %s {body}"
    made = json.loads(subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=60).stdout)
    assert made == {**json.loads(form), "dry_run": True, "notice_for": "1h"}
    assert event_violations("stop.requested.v1.json", made) == []


# --- every platform


@pytest.mark.parametrize("name", PAGES)
def test_readme_fits_a_screen_and_its_commands_are_shell(name: str) -> None:
    """What is needed, the commands, how to see that it works, how to remove it."""
    text = PAGES[name]
    assert "**You need**" in text
    assert re.search(r"\*\*(See that it works|Send an event)", text)
    assert "**Remove it" in text
    assert len(text.splitlines()) <= 85
    assert COMMANDS[name]
    script = re.sub(r"<[\w ]+>", "placeholder", COMMANDS[name])
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False, timeout=30)
    assert done.stderr == ""

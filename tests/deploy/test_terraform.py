"""deploy/functiongraph as Terraform will read it: each argument is one of the provider's, and the parts fit."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest

from handler.settings import keep_servers as keep_settings
from handler.settings import stop_servers as stop_settings
from handler.settings.login import LoginKind
from tests.conftest import ROOT
from tests.deploy.provider import COMMON, KINDS, PROVIDER
from tests.test_events_folder import schema_violations as event_violations

FOLDER = ROOT / "deploy" / "functiongraph"
ID = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"


def _plain(node: Any) -> Any:
    """What the parser read, without its quotes and marks; `dynamic` blocks as the blocks that they make."""
    match node:
        case dict():
            plain = {_plain(key): _plain(value) for key, value in node.items() if not key.startswith("__")}
            for made in plain.pop("dynamic", []):
                for name, body in made.items():
                    plain.setdefault(name, []).extend(body["content"])
            return plain
        case list():
            return [_plain(each) for each in node]
        case str() if re.fullmatch(r'"(.*)"', node, re.DOTALL):
            return node[1:-1]
        case _:
            return node


def _read() -> dict[str, list[Any]]:
    whole: dict[str, list[Any]] = {}
    for path in sorted(FOLDER.glob("*.tf")):
        with path.open() as file:
            for name, blocks in _plain(hcl2.load(file)).items():
                whole.setdefault(name, []).extend(blocks)
    return whole


TERRAFORM = _read()
RESOURCES = {
    (kind, name): body
    for block in TERRAFORM["resource"]
    for kind, named in block.items()
    for name, body in named.items()
}
FUNCTION = RESOURCES["opentelekomcloud_fgs_function_v2", "stop"]
# Those of main.tf come after those of keep.tf.
LOCALS = 1


def errors(kind: str, body: dict[str, Any]) -> list[str]:
    """Return what the provider would refuse."""
    return list(KINDS[kind].errors({name: value for name, value in body.items() if name not in COMMON}, kind))


WRONG: dict[str, tuple[str, object, str]] = {
    "opentelekomcloud_fgs_function_v2": ("memory_size", 300, "cannot be 300"),
    "opentelekomcloud_fgs_trigger_v2": ("type", "Timer", "cannot be 'Timer'"),
    "opentelekomcloud_fgs_async_invoke_config_v2": ("max_async_retry_attempts", 4, "cannot be 4"),
    "opentelekomcloud_identity_role_v3": ("display_layer", "global", "cannot be 'global'"),
    "opentelekomcloud_identity_agency_v3": ("delegated_domain", "op_svc_cff", "delegated_domain is not an argument"),
    "opentelekomcloud_lts_group_v2": ("ttl_in_days", 400, "cannot be 400"),
    "opentelekomcloud_lts_stream_v2": ("topic_name", "x", "topic_name is not an argument"),
    "opentelekomcloud_smn_topic_v2": ("title", "x", "title is not an argument"),
    "opentelekomcloud_smn_subscription_v2": ("protocol", "functiongraph", "cannot be 'functiongraph'"),
}


@pytest.mark.parametrize(("kind", "name"), RESOURCES, ids="/".join)
def test_resource_has_the_arguments_that_the_provider_has(kind: str, name: str) -> None:
    """None is missing, misspelt, or of a value that is refused; one wrong argument of each kind is found."""
    assert errors(kind, RESOURCES[kind, name]) == []
    argument, value, shown = WRONG[kind]
    (error,) = errors(kind, RESOURCES[kind, name] | {argument: value})
    assert shown in error


def test_missing_argument_and_wrong_block_are_found() -> None:
    """So are an argument that was forgotten, and one inside a block."""
    body = copy.deepcopy(FUNCTION)
    del body["app"]
    body["custom_image"][0]["uri"] = "x"
    assert sorted(errors("opentelekomcloud_fgs_function_v2", body)) == [
        "opentelekomcloud_fgs_function_v2.custom_image: uri is not an argument",
        "opentelekomcloud_fgs_function_v2: app is missing",
    ]


def test_references_lead_to_something() -> None:
    """Each resource, variable and local value that is named is there; each variable is used."""
    written = "".join(path.read_text() for path in FOLDER.glob("*.tf"))
    code = re.sub(r"(#|//).*", "", written)
    assert set(re.findall(r"\b(opentelekomcloud_\w+)\.(\w+)", code)) <= set(RESOURCES)
    declared = {name for block in TERRAFORM["variable"] for name in block}
    assert set(re.findall(r"\bvar\.(\w+)", written)) == declared
    assert set(re.findall(r"\blocal\.(\w+)", written)) == {name for block in TERRAFORM["locals"] for name in block}


def test_provider_is_pinned_and_has_a_project() -> None:
    """It begins with the version whose container functions work, and refuses to start without a project."""
    (terraform,) = TERRAFORM["terraform"]
    (wanted,) = terraform["required_providers"]
    assert wanted["opentelekomcloud"]["source"] == "opentelekomcloud/opentelekomcloud"
    assert wanted["opentelekomcloud"]["version"] == ">= 1.36.70, < 2.0.0"
    (provider,) = TERRAFORM["provider"]
    assert list(PROVIDER.errors(provider["opentelekomcloud"], "provider")) == []
    wrong = provider["opentelekomcloud"] | {"tenant": "x"}
    assert list(PROVIDER.errors(wrong, "provider")) == ["provider: tenant is not an argument"]


def test_role_holds_one_project_and_one_way_to_change_servers() -> None:
    """The agency is for one project; of all that the role allows, nothing but the stop changes a server."""
    role = RESOURCES["opentelekomcloud_identity_agency_v3", "function"]["project_role"]
    assert [set(each) for each in role] == [{"project", "roles"}]
    values = TERRAFORM["locals"][LOCALS]
    assert set(values["actions"]) == {"nova", "bms", "keep"}
    for api, actions in values["actions"].items():
        write = {"nova": "ecs:servers:stop", "bms": "bms:servers:stop", "keep": "ecs:servers:setMetadata"}[api]
        changing = {each for each in actions if not re.search(r":(get|list|use)$", each)}
        assert changing == {write}
    further = RESOURCES["opentelekomcloud_identity_role_v3", "stop"]["statement"][1]["action"]
    assert set(further) == {"smn:topic:list", "smn:topic:publish"}


def test_keep_is_a_function_of_its_own_that_cannot_stop() -> None:
    """With its own role and agency, one instance, valid settings, and callers that are authenticated."""
    function = RESOURCES["opentelekomcloud_fgs_function_v2", "keep"]
    assert "identity_agency_v3.keep" in function["agency"]
    assert RESOURCES["opentelekomcloud_identity_role_v3", "keep"]["statement"] == [
        {"effect": "Allow", "action": '${local.actions["keep"]}'}
    ]
    assert function["max_instance_num"] == "1"
    written = TERRAFORM["locals"][0]["keep_settings"]
    environ = {
        name: text.replace("${var.region}", "eu-de").replace("${tostring(var.dry_run)}", "true")
        for name, text in written.items()
    }
    assert environ.pop("FUNCTION_TARGET") == "keep_servers"
    project = {"RUNTIME_PROJECT_ID": "0123456789abcdef0123456789abcdef"}
    found = keep_settings.from_environ({**environ, **project, "AUTOSTOP_BEARER_TOKENS": "token-of-this-test"})
    assert (found.login.kind, found.callers.inbound_auth) == (LoginKind.FUNCTIONGRAPH, "bearer")
    assert found.policy.limits.dry_run


def test_retries_are_set_and_end_in_a_topic_that_starts_nothing() -> None:
    """The platform's own default is not to retry a failed function; each run ends in a topic of its own kind.

    With fewer than all four log arguments the platform chooses where it logs.
    """
    assert {"log_group_id", "log_group_name", "log_topic_id", "log_topic_name"} <= set(FUNCTION)
    config = RESOURCES["opentelekomcloud_fgs_async_invoke_config_v2", "stop"]
    assert config["max_async_retry_attempts"] > 0
    (failure,) = config["on_failure"]
    assert failure["destination"] == "SMN"
    assert "smn_topic_v2.failures.topic_urn" in failure["param"]
    (success,) = config["on_success"]
    assert success["destination"] == "SMN"
    assert "smn_topic_v2.results.topic_urn" in success["param"]
    started = RESOURCES["opentelekomcloud_fgs_trigger_v2", "requests"]["event_data"]
    assert "smn_topic_v2.requests.topic_urn" in started


def test_readme_explains_the_contradiction_about_the_runtime() -> None:
    """Manual and API reference disagree about Python 3.12: the container brings its own."""
    assert "Python3.12" in FUNCTION["runtime"]
    text = (FOLDER / "README.md").read_text()
    assert re.search(r"API reference ends at Python 3\.10.*container", text, re.DOTALL)


def test_what_a_deployment_leaves_behind_is_not_committed() -> None:
    """State, answers and secrets; the examples are."""
    folder = "deploy/functiongraph"
    names = ["terraform.tfvars", "terraform.tfstate", "terraform.tfstate.backup", ".terraform/x", ".terraform.lock.hcl"]
    ignored = [f"{folder}/{name}" for name in names] + [
        "deploy/cloud-run/service.local.yaml",
        "deploy/knative/secret.yaml",
    ]
    command = ["git", "check-ignore", *ignored, f"{folder}/terraform.tfvars.example"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ignored


def test_function_gives_up_before_the_platform_does() -> None:
    """AUTOSTOP_DEADLINE lies below the function's time-out, and that below the gateway's 90 seconds or at them."""
    values = TERRAFORM["locals"][LOCALS]
    (deadline,) = re.findall(r'AUTOSTOP_DEADLINE\s*=\s*"(\d+)s"', values["settings"])
    assert int(deadline) < FUNCTION["timeout"] <= 90


@pytest.mark.parametrize("container", [False, True])
def test_environment_starts_the_function_on_the_platform(container: bool) -> None:
    """With either form the settings are valid, nothing is missing, and the agency's login is the one that counts."""
    values = TERRAFORM["locals"][LOCALS]
    pairs = re.findall(r'\b([A-Z_]+) = (?:tostring\()?("[^"]*"|var\.\w+)', values["settings"])
    defaults = {name: body.get("default") for block in TERRAFORM["variable"] for name, body in block.items()}
    environ = {"RUNTIME_PROJECT_ID": "0123456789abcdef0123456789abcdef"}
    for name, value in pairs:
        text = str(defaults[value[4:]]) if value.startswith("var.") else value.strip('"')
        environ[name] = text.replace("${var.region}", str(defaults["region"])).lower()
    port = environ.pop("PORT")
    assert port == "8000"
    found = stop_settings.from_environ(environ | ({"PORT": port} if container else {}))
    assert found.login.kind is LoginKind.FUNCTIONGRAPH
    assert found.policy.dry_run


def test_zip_is_the_one_that_make_packs() -> None:
    """Its place and its entry are those of `make functiongraph-zip`."""
    from deploy.functiongraph import package

    values = TERRAFORM["locals"][LOCALS]
    assert (FOLDER / values["zip"].replace("${path.module}/", "")).resolve() == package.TARGET
    assert '"index.handler"' in FUNCTION["handler"]
    assert '"index.initializer"' in FUNCTION["initializer_handler"]


def test_first_deployment_stops_nothing_and_holds_no_secret() -> None:
    """It is a dry run until that is changed, and the example has no secret in it."""
    (dry_run,) = [block["dry_run"] for block in TERRAFORM["variable"] if "dry_run" in block]
    assert dry_run["default"] is True
    example = _plain(hcl2.loads((FOLDER / "terraform.tfvars.example").read_text()))
    needed = {name for block in TERRAFORM["variable"] for name, body in block.items() if "default" not in body}
    assert needed <= set(example)
    written = "".join(path.read_text() for path in FOLDER.glob("*") if path.is_file())
    assert not re.search(r"(password|secret_key)\s*=", written)


# --- with Terraform itself, where it is installed

terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")


def _terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@terraform
def test_files_are_formatted_as_terraform_does() -> None:
    """`terraform fmt` would change nothing."""
    assert _terraform(FOLDER, "fmt", "-check", "-diff").stdout == ""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The folder's variables and local values, without the provider: Terraform can work these out by itself."""
    (tmp_path / "variables.tf").write_text((FOLDER / "variables.tf").read_text())
    main = (FOLDER / "main.tf").read_text()
    found = re.search(r"^locals \{\n.*?^\}\n", main, re.DOTALL | re.MULTILINE)
    guards = re.findall(r"^    precondition \{\n.*?^    \}\n", main, re.DOTALL | re.MULTILINE)
    assert found
    assert len(guards) == 2
    (tmp_path / "main.tf").write_text(
        f'{found[0]}\nresource "terraform_data" "x" {{\n  input = jsonencode(local.settings)\n'
        f"  lifecycle {{\n{''.join(guards)}  }}\n}}\n"
        'output "scheduled" {\n  value = jsonencode(local.scheduled)\n}\n'
        'output "notice" {\n  value = jsonencode(local.notice)\n}\n'
    )
    example = _plain(hcl2.loads((FOLDER / "terraform.tfvars.example").read_text()))
    (tmp_path / "terraform.tfvars.json").write_text(json.dumps(example))
    assert _terraform(tmp_path, "init", "-backend=false").returncode == 0
    return tmp_path


def _plan(module: Path, **variables: object) -> str:
    (module / "x.auto.tfvars.json").write_text(json.dumps(variables))
    done = _terraform(module, "plan", "-no-color", "-input=false")
    assert (done.returncode == 0) == (not done.stderr.strip() or "Error" not in done.stderr)
    return " ".join(re.sub(r"[│╷╵]", " ", done.stderr).split())


@terraform
@pytest.mark.parametrize(
    ("variables", "data"),
    [
        ({"server_ids": [ID]}, {"server_ids": [ID]}),
        (
            {"server_ids": [], "selector": {"tags": ["autostop"], "name": "ci-*"}},
            {"selector": {"tags": ["autostop"], "name": "ci-*"}},
        ),
        ({"server_ids": [], "selector": {"metadata": {"team": "x"}}}, {"selector": {"metadata": {"team": "x"}}}),
    ],
)
def test_schedule_names_servers_or_a_selector(module: Path, variables: dict[str, Any], data: dict[str, Any]) -> None:
    """What Terraform makes of the variables is data that the schema of stop requests takes."""
    (module / "x.auto.tfvars.json").write_text(json.dumps(variables))
    done = _terraform(module, "plan", "-no-color", "-input=false", "-out=plan")
    assert done.returncode == 0, done.stderr
    plan = json.loads(_terraform(module, "show", "-json", "plan").stdout)
    scheduled = json.loads(plan["planned_values"]["outputs"]["scheduled"]["value"])
    assert scheduled == {**data, "reason": "nightly"}
    assert event_violations("stop.requested.v1.json", scheduled) == []
    noticed = json.loads(plan["planned_values"]["outputs"]["notice"]["value"])
    assert noticed == {**scheduled, "dry_run": True, "notice_for": "1h"}
    assert event_violations("stop.requested.v1.json", noticed) == []


@terraform
def test_terraform_takes_the_example_and_refuses_what_cannot_work(module: Path) -> None:
    """Wrong ids, schedules without a zone, foreign images, too much environment: reported before anything is made."""
    assert "Error" not in _plan(module)
    assert "Must be UUIDs" in _plan(module, server_ids=["web-1"])
    assert "either server_ids or selector" in _plan(module, server_ids=[])
    assert "either server_ids or selector" in _plan(module, selector={"tags": ["autostop"]})
    assert "Must be CRON_TZ" in _plan(module, schedule="0 0 20 ? * MON-FRI")
    assert "Must be CRON_TZ" in _plan(module, notice_schedule="0 0 19 ? * MON-FRI")
    assert "Must be a duration" in _plan(module, notice_for="1 hour")
    assert "begin with swr." in _plan(module, image="docker.io/library/x")
    assert "nova or bms" in _plan(module, api="ecs")
    assert "Error" not in _plan(module, image="swr.eu-de.otc.t-systems.com/x/y:1", schedule="CRON_TZ=UTC 0 0 20 * * *")
    assert "4096 characters" in _plan(module, settings={"AUTOSTOP_PROTECT": "x" * 4096})
    assert "at most 20 variables" in _plan(module, settings={f"X{n}": "" for n in range(20)})

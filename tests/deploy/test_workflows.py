""".github/workflows: valid, with no more rights than needed, and nothing in them that could be changed from outside."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.schema import schema_says

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {path.name: yaml.safe_load(path.read_text()) for path in FILES}
STEPS = [step for each in WORKFLOWS.values() for job in each["jobs"].values() for step in job["steps"]]


def test_workflows_are_valid() -> None:
    """As GitHub's schema has it."""
    assert schema_says("github-workflows", *FILES) == ""


def test_wrong_field_in_a_workflow_is_found(tmp_path: Path) -> None:
    """The check can fail."""
    wrong = tmp_path / "ci.yml"
    wrong.write_text(FILES[0].read_text().replace("runs-on:", "run-on:", 1))
    assert "'run-on'" in schema_says("github-workflows", wrong)


def test_actions_are_pinned_to_a_commit() -> None:
    """A tag can be moved to other code; a commit cannot. The version stands beside it."""
    used = [line for path in FILES for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_are_given_to_the_job_that_needs_them(name: str) -> None:
    """By default a workflow may read the code; only the release may do more."""
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    more = {job for job, body in WORKFLOWS[name]["jobs"].items() if "permissions" in body}
    assert more == ({"release"} if name == "release.yml" else set())


def test_nothing_from_outside_gets_into_a_script() -> None:
    """Titles, branch names and the like reach a script as variables, never as text of it."""
    for step in STEPS:
        assert "${{" not in step.get("run", "")


def test_checkout_leaves_no_token_behind() -> None:
    """What runs later cannot push."""
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == sum(len(each["jobs"]) for each in WORKFLOWS.values())
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_every_python_that_the_project_names_is_tested_without_a_network() -> None:
    """The matrix is the list of classifiers, and the tests have nothing but loopback."""
    job = WORKFLOWS["ci.yml"]["jobs"]["test"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    assert job["strategy"]["matrix"]["python"] == named
    assert "unshare --net" in job["steps"][-1]["run"]


def test_release_proves_where_files_and_image_come_from() -> None:
    """Both are signed with the workflow's identity, and the parts list is among the files."""
    steps = WORKFLOWS["release.yml"]["jobs"]["release"]["steps"]
    proved = [step["with"] for step in steps if step.get("uses", "").startswith("actions/attest-build-provenance@")]
    assert [sorted(each) for each in proved] == [
        ["push-to-registry", "subject-digest", "subject-name"],
        ["subject-path"],
    ]
    assert any("sbom" in step.get("run", "") for step in steps)


def test_targets_that_are_run_exist() -> None:
    """Workflows and pre-commit hooks call the Makefile, as people do."""
    targets = set(re.findall(r"^([\w.$()/-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    runs = [step.get("run", "") for step in STEPS] + [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    called = {word for run in runs for line in re.findall(r"\bmake ([\w ./-]+)", run) for word in line.split()}
    assert called - {".venv/dev.stamp"} <= targets

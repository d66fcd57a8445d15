""".github/workflows: valid, with no more rights than needed, and nothing in them that could be changed from outside."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy import audit
from tests.deploy.validate import vendored_schema_errors

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {path.name: yaml.safe_load(path.read_text()) for path in FILES}
STEPS = [step for each in WORKFLOWS.values() for job in each["jobs"].values() for step in job["steps"]]


def test_workflows_are_valid(tmp_path: Path) -> None:
    """By GitHub's schema; a wrong field in one is found."""
    assert vendored_schema_errors("github-workflows", *FILES) == ""
    wrong = tmp_path / "ci.yml"
    wrong.write_text(FILES[0].read_text().replace("runs-on:", "run-on:", 1))
    assert "'run-on'" in vendored_schema_errors("github-workflows", wrong)


def test_actions_are_pinned_to_a_commit() -> None:
    """A tag can be moved to other code; a commit cannot. The version stands beside it."""
    used = [line for path in FILES for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_are_given_to_the_job_that_needs_them(name: str) -> None:
    """By default a workflow may read the code; only what publishes or opens a pull request may do more."""
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    more = {job for job, body in WORKFLOWS[name]["jobs"].items() if "permissions" in body}
    assert more == {"release.yml": {"publish"}, "locks.yml": {"propose"}}.get(name, set())


@pytest.mark.parametrize(("name", "job"), [("release.yml", "publish"), ("locks.yml", "propose")])
def test_job_that_may_write_runs_no_code_that_was_built_or_installed(name: str, job: str) -> None:
    """Tests and tools run in a job before it that may only read; what comes out of that one is handed on as files."""
    body = WORKFLOWS[name]["jobs"][job]
    before = WORKFLOWS[name]["jobs"][body["needs"]]
    assert any("make check test" in step.get("run", "") for step in before["steps"])
    assert "permissions" not in before
    for step in body["steps"]:
        assert not re.search(r"\b(make|pip|python\d?|uv|npm|docker (build|run))\b", step.get("run", "")), step
        allowed = {"", "actions/attest-build-provenance", "actions/download-artifact"}
        allowed |= {"actions/checkout"} if name == "locks.yml" else set()
        assert step.get("uses", "").split("@")[0] in allowed


def test_image_is_built_once_and_pushed_as_it_was_built() -> None:
    """The job that may push loads the file that the other one saved."""
    build, publish = (
        " ".join(step.get("run", "") for step in WORKFLOWS["release.yml"]["jobs"][job]["steps"])
        for job in ("build", "publish")
    )
    assert "docker save" in build
    assert "docker push" not in build
    assert "docker load" in publish
    assert "secrets." not in str(WORKFLOWS["release.yml"]["jobs"]["build"])


def test_scripts_get_no_untrusted_text_and_no_token() -> None:
    """Titles, branch names and the like reach a script as variables, never as text of it; it cannot push."""
    assert not [step for step in STEPS if "${{" in step.get("run", "")]
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    # Every job but the one that publishes, which needs no code.
    assert len(checkouts) == sum(len(each["jobs"]) for each in WORKFLOWS.values()) - 1
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_every_python_that_the_project_names_is_tested_without_a_network() -> None:
    """The matrix is the list of classifiers, and the tests have nothing but loopback."""
    job = WORKFLOWS["ci.yml"]["jobs"]["test"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    assert job["strategy"]["matrix"]["python"] == named
    assert "unshare --net" in job["steps"][-1]["run"]


def test_release_attests_where_files_and_image_come_from() -> None:
    """Both are signed with the workflow's identity, the parts list is among the files, and all is built twice."""
    steps = WORKFLOWS["release.yml"]["jobs"]["publish"]["steps"]
    attested = [step["with"] for step in steps if step.get("uses", "").startswith("actions/attest-build-provenance@")]
    assert [sorted(each) for each in attested] == [
        ["push-to-registry", "subject-digest", "subject-name"],
        ["subject-path"],
    ]
    built = " ".join(step.get("run", "") for step in WORKFLOWS["release.yml"]["jobs"]["build"]["steps"])
    assert {"sbom", "audit", "release-check"} <= set(built.split())


def test_targets_that_are_run_exist() -> None:
    """Workflows and pre-commit hooks call the Makefile, as people do."""
    targets = set(re.findall(r"^([\w.$()/-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    runs = [step.get("run", "") for step in STEPS] + [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    words = {word for run in runs for line in re.findall(r"\bmake ([\w ./=-]+)", run) for word in line.split()}
    assert {word for word in words if "=" not in word} - {".venv/dev.stamp"} <= targets


# --- the other files of .github

GITHUB = ROOT / ".github"


def test_dependabot_covers_actions_and_the_base_image() -> None:
    """Valid, and with the folder that has the Dockerfile; the locks have a workflow of their own."""
    assert vendored_schema_errors("dependabot", GITHUB / "dependabot.yml") == ""
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    covered = {(each["package-ecosystem"], each["directory"]) for each in updates}
    assert covered == {("github-actions", "/"), ("docker", "/deploy"), ("pip", "/")}
    assert (ROOT / "deploy" / "Dockerfile").exists()
    steps = WORKFLOWS["locks.yml"]["jobs"]["renew"]["steps"]
    assert [step["run"] for step in steps if "lock" in str(step.get("run"))] == ["make lock UPGRADE=--upgrade"]


def test_issue_forms_are_valid(tmp_path: Path) -> None:
    """As GitHub's schema has it; a wrong field in one is found."""
    forms = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
    assert vendored_schema_errors("github-issue-forms", *forms) == ""
    assert vendored_schema_errors("github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml") == ""
    wrong = tmp_path / "bug.yml"
    wrong.write_text(forms[0].read_text().replace("description:", "descripton:", 1))
    assert "descripton" in vendored_schema_errors("github-issue-forms", wrong)


def test_code_owners_name_paths_that_exist() -> None:
    """A path that is gone would leave its files without a reviewer."""
    lines = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if line and line[0] != "#"]
    assert lines
    for pattern, *owners in lines:
        assert owners == [owner for owner in owners if owner.startswith("@")] != []
        assert pattern == "*" or list(ROOT.glob(pattern.strip("/"))), pattern


# --- the locks

LOCKS = {path.name: path.read_text() for path in sorted(ROOT.glob("requirements*.lock"))}
MAKEFILE = (ROOT / "Makefile").read_text()


def _versions(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!-]+)", lock, re.MULTILINE))


def test_every_locked_version_has_hashes_no_address_and_is_the_same_in_all_locks() -> None:
    """Pip checks what it gets, wherever it comes from."""
    assert len(LOCKS) == 4
    found: dict[str, str] = {}
    for name, lock in LOCKS.items():
        assert "://" not in lock
        # All four end in one environment.
        for package, version in _versions(lock).items():
            assert found.setdefault(package, version) == version, (name, package)
        entries = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)[1:]
        for entry in entries:
            assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", entry), (name, entry)
            assert "--hash=sha256:" in entry, (name, entry)


def test_build_requirements_and_uv_are_locked() -> None:
    """What builds the project, and what writes the locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = _versions(LOCKS["requirements-build.lock"])
    for requirement in (*project["build-system"]["requires"], *project["dependency-groups"]["build"]):
        assert re.split(r"[<>=~]", requirement)[0] in build
    assert "uv" in _versions(LOCKS["requirements-tools.lock"])


def test_every_install_is_by_hash_from_wheels_or_without_an_index() -> None:
    """In the Makefile, the image, the release check and the deploy pages: nothing builds a dependency from source."""
    assert "LOCKED := --require-hashes --only-binary :all:\n" in MAKEFILE
    calls = [line for line in MAKEFILE.splitlines() if re.search(r"\$\(PIP\) (install|wheel|download)", line)]
    assert len(calls) == 3
    for line in calls:
        assert "$(LOCKED)" in line or ("--no-index" in line and "--no-build-isolation" in line), line
    for page in (ROOT / "deploy").rglob("README.md"):
        for line in page.read_text().splitlines():
            if re.search(r"\bpip3? install\b", line):
                assert "--require-hashes" in line, (page, line)


def test_every_lock_is_audited() -> None:
    """Those of the build and the tools as well: they run with the project's own files."""
    assert sorted(audit.LOCKS) == sorted(LOCKS)
    assert re.search(r"^audit:.*\n\t@\$\(BIN\)/python -m tests\.deploy\.audit$", MAKEFILE, re.MULTILINE)


def test_one_test_can_be_run_without_coverage() -> None:
    """Coverage belongs to `make test`, whose last line is the summary of pytest."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    assert "--cov" not in options
    (recipe,) = re.findall(r"^test:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert "--cov=handler --cov-branch" in recipe
    first, second = recipe.splitlines()
    assert " -m pytest " in first
    # Prints nothing unless it fails.
    assert "> .coverage-stop ||" in second
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert ci[-2:] == ["make check", "make test"]

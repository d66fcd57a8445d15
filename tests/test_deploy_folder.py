"""deploy/ holds together: what the image says is what the function needs. The manifests: tests/deploy/."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"

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
    """Return the last instruction of this name in the final stage."""
    return [rest for instruction, rest in FINAL if instruction == name][-1]


def environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    return dict(pair.split("=", 1) for name, rest in FINAL if name == "ENV" for pair in rest.split())


def hadolint(text: str) -> str:
    """What the linter says of a Dockerfile."""
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60).stdout


def test_dockerfile_is_as_the_linter_wants_it() -> None:
    """It finds nothing; a base without a version, and a command that is not an exec form, it finds."""
    text = (DEPLOY / "Dockerfile").read_text()
    assert hadolint(text) == ""
    assert "DL3006" in hadolint(text.replace(":3.12-slim-trixie", "").replace("FROM ${PYTHON_IMAGE}", "FROM python"))
    assert "DL3025" in hadolint(text.replace('CMD ["functions-framework"]', "CMD functions-framework"))


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
        assert ("--require-hashes" in rest and "--only-binary=:all:" in rest) or "--no-index" in rest
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

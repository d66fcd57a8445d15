"""Every document: its blocks run as they stand, its words are the field's, and the README is short."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from handler.demo.fleet import FLEET
from handler.inbound.cloudevents import strict_json
from handler.inbound.webhooks import grammar
from tests.conftest import ROOT
from tests.deploy.validate import schema_errors
from tests.support.blocks import Block, Terminal, blocks, clone, new_user, sentences
from tests.support.process import in_use
from tests.test_events_folder import schema_violations

DOCUMENTS = sorted(
    page
    for part in ("*.md", ".github/*.md", "deploy/**/*.md", "events/**/*.md", "handler/**/*.md", "tests/**/*.md")
    for page in ROOT.glob(part)
)
README = ROOT / "README.md"
BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
RUN = [block for block in BLOCKS if block.not_run is None]

# What the commands of documents write, in this order, pasted one document after the other.
_OF_THE_README = (
    "Everything came out as expected.",
    "0 errors.",
    "5 servers: 3 would be stopped, 1 skipped, 1 unchanged.",
    "5 servers: 3 would be stopped, 1 skipped, 1 unchanged.",
    "5 servers: 1 skipped, 3 stopped, 1 unchanged.",
)
_OF_THE_EVENTS = (
    "2 servers: 2 would be stopped.",
    "2 servers: 2 would be stopped.",
    "2 servers: 2 stopped.",
    "5 servers: 1 skipped, 3 stopped, 1 unchanged.",
    '"stopped": 0',
    '"reason": "already-stopped"',
    '"status": "handed-on"',
)
SERVING = ("README.md", "events/README.md", "events/webhooks.md")
SETTING = ("deploy/authentication.md", "deploy/observability/README.md")
_TRY = "Try it on the simulated cloud"
_PORTS = (18774, 18080, 18081)

# What plain technical English has other words for, see CONTRIBUTING.md. Whole words, in any case.
PRIVATE_WORDS = (
    *("crew", "witness", "witnesses", "setback", "setbacks", "told", "tell-tale", "mend", "mends", "mended"),
    *("rehearsal", "rehearsals", "rightly", "spoilt", "errand", "fibers", "town", "law", "door", "flaw", "flaws"),
    *("somebody", "someone", "whoever", "trouble", "troubles", "heart", "house", "said out loud", "lent"),
    *("complaint", "wire's", "crooked", "business of", "gets through"),
)


def name(document: Path) -> str:
    """Return the path of a document in the repository."""
    return str(document.relative_to(ROOT))


def at(block: Block) -> str:
    """Return the place of a block."""
    return f"{name(block.document)}:{block.line}"


def of(language: str) -> list[Block]:
    """Return the blocks of a language."""
    return [block for block in RUN if block.language == language]


def test_every_block_is_run_or_says_why_not() -> None:
    """A block has a language that a test below runs; a document with commands is one of the sessions."""
    assert len(RUN) > 10
    known = {"sh", "json", "yaml", "python", "chat", "text"}
    assert [at(block) for block in BLOCKS if block.language not in known] == []
    assert {name(block.document) for block in of("sh")} == {*SERVING, *SETTING}


@contextlib.contextmanager
def _ports() -> Iterator[None]:
    """The documents' ports, which only one session of this machine's user can have at a time."""
    with (Path(tempfile.gettempdir()) / f"bms-autostop-documents-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        used = [port for port in _PORTS if in_use(port)]
        assert not used, (
            f"ports {used} of 127.0.0.1 must be free: end what listens there (`ss -ltnp`) and run this again"
        )
        yield


def _paste(commands: list[Block], folder: Path) -> str:
    for name in ("clone", "home"):
        (folder / name).mkdir(parents=True)
    clone(ROOT, folder / "clone")
    output = ""
    with contextlib.ExitStack() as terminals:
        first, second = (Terminal(folder / "clone", new_user(folder / "home")) for _ in range(2))
        terminals.callback(first.close)
        terminals.callback(second.close)
        for block in commands:
            if block.terminal == 1:
                first.start(block)
            else:
                output += second.run(block)
    return output


def _assert_in_order(expected: tuple[str, ...], output: str) -> None:
    position = 0
    for text in expected:
        assert text in output[position:], f"{text!r} is not in:\n{output[position:]}"
        position = output.index(text, position) + len(text)


def test_commands_on_the_simulated_cloud_run_as_they_stand(tmp_path: Path) -> None:
    """Each command succeeds, and writes what the documents say. One test: the ports are the documents."""
    commands = [block for block in of("sh") if name(block.document) in SERVING]
    readme = [block for block in commands if block.document == README]
    # The cloud, the login and the function, as the pages about events want them.
    running = [block for block in readme if block.heading == _TRY][:3]
    with _ports():
        _assert_in_order(_OF_THE_README, _paste(readme, tmp_path / "readme"))
        others = [block for block in commands if block.document != README]
        _assert_in_order(_OF_THE_EVENTS, _paste([*running, *others], tmp_path / "events"))


@pytest.mark.parametrize("document", SETTING)
def test_settings_run_as_they_stand(document: str, tmp_path: Path) -> None:
    """A shell takes the lines that set variables."""
    _paste([block for block in of("sh") if name(block.document) == document], tmp_path)


def test_command_that_fails_is_noticed(tmp_path: Path) -> None:
    """Also in the middle of a block, in a pipe, and if the last command succeeds."""
    terminal = Terminal(tmp_path, new_user(tmp_path))
    try:
        for text in ("false\ntrue\n", "false | cat\n", "no-such-command; true\n"):
            with pytest.raises(AssertionError, match="command failed"):
                terminal.run(Block(tmp_path, 1, "sh", "", text))
        assert terminal.run(Block(tmp_path, 1, "sh", "", "echo well\n")) == "well\n"
    finally:
        terminal.close()


@pytest.mark.parametrize("block", of("json"), ids=at)
def test_json_is_data_of_a_stop_request(block: Block) -> None:
    """It is JSON, and by the schema what a stop request may have."""
    assert schema_violations("stop.requested.v1.json", strict_json.loads(block.text.encode())) == []


@pytest.mark.parametrize("block", of("yaml"), ids=at)
def test_yaml_is_a_valid_resource(block: Block) -> None:
    """By the closed schema of its kind; a PingSource's data is data of a stop request."""
    for resource in yaml.safe_load_all(block.text):
        assert schema_errors(resource) == []
        if resource["kind"] == "PingSource":
            assert schema_violations("stop.requested.v1.json", json.loads(resource["spec"]["data"])) == []


@pytest.mark.parametrize("block", of("chat"), ids=at)
def test_chat_commands_are_understood(block: Block) -> None:
    """Each line is one command of the grammar."""
    for line in block.text.splitlines():
        assert not isinstance(grammar.parse(line), grammar.NotUnderstood), line


@pytest.mark.parametrize("block", of("python"), ids=at)
def test_python_is_a_test_that_passes(block: Block, tmp_path: Path) -> None:
    """In a folder of its own, with the command on the path."""
    (tmp_path / "test_block.py").write_text(block.text)
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_block.py"]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_readme_is_short() -> None:
    """At most 200 lines, and no sentence of more than 30 words."""
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    assert [sentence for sentence in sentences(text) if len(sentence.split()) > 30] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_words_are_the_fields(document: Path) -> None:
    """No private word stands in a document, outside of code and of tables that are made from the code."""
    text = re.sub(r"<!-- [a-z ]+: made from .*?<!-- end of", "", document.read_text(), flags=re.DOTALL)
    text = "\n".join(sentences(text)).lower()
    assert [word for word in PRIVATE_WORDS if re.search(rf"\b{re.escape(word)}\b", text)] == []


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    """A link within the project leads to what a fresh clone has."""
    for path, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), path
        if anchor:
            assert anchor in _anchors(target), f"{path}#{anchor}"


def test_the_contents_list_every_section_of_the_readme() -> None:
    """In the order of the sections."""
    text = README.read_text()
    assert re.findall(r"^- \[(.*?)\]\(#", text, re.MULTILINE) == re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_the_tests_that_security_names_exist() -> None:
    """Each claim of SECURITY.md that names a test names one that is there, in the file beside it."""
    text = (ROOT / "SECURITY.md").read_text()
    files = {str(path): path.read_text() for path in ROOT.glob("tests/**/test_*.py")}
    named = re.findall(r"`((?:[a-z_0-9]+/)*test_[a-z_0-9]+(?:\.py)?)`", text)
    assert len(named) > 50
    for test in named:
        if test.endswith(".py"):
            assert any(path.endswith(f"/{test}") for path in files), test
        else:
            assert any(f"def {test}(" in code for code in files.values()), test
    rows = [line for line in text.partition("## Limits")[0].splitlines() if re.match(r"\| (?!claim|who)[^-]", line)]
    assert [row for row in rows if "`" not in row.rpartition(" | ")[2]] == []


_PLATFORMS = [
    f"deploy/{platform}/README.md" for platform in ("cloud-run", "compose", "functiongraph", "knative", "plain")
]


@pytest.mark.parametrize("page", ["README.md", "events/README.md", *_PLATFORMS])
def test_what_a_stop_is_stands_near_the_top(page: str) -> None:
    """On Open Telekom Cloud and, where the page is for other clouds too, on upstream Nova."""
    top, *_ = re.split(r"^## Two commands|^## Examples|\*\*You need", (ROOT / page).read_text(), flags=re.MULTILINE)
    top = " ".join(top.split()).lower()
    assert "forced power cut" in top
    if "functiongraph" not in page:
        assert "clean shutdown with a time-out" in top


def test_the_simulated_ids_are_those_of_the_demo_fleet() -> None:
    """Ids in commands are servers that `simulate --fleet demo` has."""
    uuid = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    ids = {found for block in of("sh") + of("chat") for found in re.findall(uuid, block.text)}
    assert ids
    assert ids <= {server.id for server in FLEET}

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

from handler.inbound.cloudevents import strict_json
from handler.inbound.webhooks import grammar
from tests.conftest import ROOT
from tests.deploy.schemas import schema_faults
from tests.support.blocks import Block, Terminal, blocks, clone, in_use, new_user, sentences
from tests.test_events_folder import faults

DOCUMENTS = sorted(
    page
    for part in ("*.md", ".github/*.md", "deploy/**/*.md", "events/**/*.md", "handler/**/*.md", "tests/**/*.md")
    for page in ROOT.glob(part)
)
README = ROOT / "README.md"
BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
RUN = [block for block in BLOCKS if block.not_run is None]

# What each document's commands write, in this order; all but the README's run after the first blocks of its section.
SESSIONS = {
    "README.md": (
        "Everything came out as expected.",
        "0 errors.",
        "5 servers: 3 would be stopped, 1 skipped, 1 unchanged.",
        "5 servers: 3 would be stopped, 1 skipped, 1 unchanged.",
        "5 servers: 1 skipped, 3 stopped, 1 unchanged.",
    ),
    "events/README.md": (
        "2 servers: 2 would be stopped.",
        "2 servers: 2 would be stopped.",
        "2 servers: 2 stopped.",
        "5 servers: 1 skipped, 3 stopped, 1 unchanged.",
        '"stopped": 0',
        '"reason": "already-stopped"',
    ),
    "events/webhooks.md": ("9b2f7c1e-4d3a-4e8b-a1c5-7f6e5d4c3b2a",),
    "deploy/authentication.md": (),
    "deploy/observability/README.md": (),
}
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
    return str(document.relative_to(ROOT))


def at(block: Block) -> str:
    return f"{name(block.document)}:{block.line}"


def of(language: str) -> list[Block]:
    return [block for block in RUN if block.language == language]


# --- blocks


def test_every_block_is_run_or_says_why_not() -> None:
    """A block has a language that a test below runs; a document with commands is one of the sessions."""
    assert len(RUN) > 10
    known = {"sh", "json", "yaml", "python", "chat", "text"}
    assert [at(block) for block in BLOCKS if block.language not in known] == []
    assert {name(block.document) for block in of("sh")} == set(SESSIONS)


def test_marks_are_read(tmp_path: Path) -> None:
    """The comment right before a block counts, and it must be one of the two that are known."""
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- not run: needs an account -->\n```sh\na\n```\n<!-- terminal 1 -->\n```sh\nb\n```\n")
    first, second = blocks(page)
    assert (first.not_run, first.terminal, first.heading) == ("needs an account", 2, "A")
    assert (second.not_run, second.terminal, second.text) == (None, 1, "b\n")
    for wrong in ("not run", "not run: no", "skip"):
        page.write_text(f"<!-- {wrong} -->\n```sh\na\n```\n")
        with pytest.raises(ValueError, match="not a mark"):
            blocks(page)
    page.write_text("```sh\na\n")
    with pytest.raises(ValueError, match="not closed"):
        blocks(page)


@contextlib.contextmanager
def _ports() -> Iterator[None]:
    """The documents' ports, which only one session of this machine's user can have at a time."""
    with (Path(tempfile.gettempdir()) / f"bms-autostop-documents-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [port for port in _PORTS if in_use(port)] == [], "the documents need these ports"
        yield


@pytest.mark.parametrize("document", SESSIONS)
def test_commands_run_as_they_stand(document: str, tmp_path: Path) -> None:
    """Pasted into a shell of a new user, each command succeeds, and writes what the document says."""
    commands = [block for block in of("sh") if name(block.document) == document]
    if document.startswith("events/"):
        before = [block for block in of("sh") if block.document == README and block.heading == _TRY]
        # The cloud, the login and the function.
        commands = [*before[:3], *commands]
    for folder in ("clone", "home"):
        (tmp_path / folder).mkdir()
    clone(ROOT, tmp_path / "clone")
    output = ""
    with _ports(), contextlib.ExitStack() as terminals:
        first, second = (Terminal(tmp_path / "clone", new_user(tmp_path / "home")) for _ in range(2))
        terminals.callback(first.close)
        terminals.callback(second.close)
        for block in commands:
            if block.terminal == 1:
                first.start(block)
            else:
                output += second.run(block)
    position = 0
    for expected in SESSIONS[document]:
        assert expected in output[position:], f"{expected!r} is not in:\n{output[position:]}"
        position = output.index(expected, position) + len(expected)


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
    assert faults("stop.requested.v1.json", strict_json.loads(block.text.encode())) == []


@pytest.mark.parametrize("block", of("yaml"), ids=at)
def test_yaml_is_a_valid_resource(block: Block) -> None:
    """By the closed schema of its kind; a PingSource's data is data of a stop request."""
    for resource in yaml.safe_load_all(block.text):
        assert schema_faults(resource) == []
        if resource["kind"] == "PingSource":
            assert faults("stop.requested.v1.json", json.loads(resource["spec"]["data"])) == []


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
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "test_block.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


# --- words


def test_the_readme_is_short() -> None:
    """At most 200 lines, and no sentence of more than 30 words."""
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    assert [sentence for sentence in sentences(text) if len(sentence.split()) > 30] == []


def test_long_sentences_are_found() -> None:
    """Over lines, in lists and in cells; code and links count as one word, headings and cells end a sentence."""
    long = "word " * 31
    assert [len(sentence.split()) for sentence in sentences(f"Short one. {long}\nword.")] == [2, 32]
    assert max(len(sentence.split()) for sentence in sentences(f"- a\n- {long}")) == 31
    assert max(len(sentence.split()) for sentence in sentences(f"| a | {long} |\n|---|---|\n")) == 31
    assert list(sentences("# A\nSee [the page](a/b.md), `a b c`.\n```sh\nx y z\n```\n")) == ["A", "See the page, CODE."]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_words_are_the_fields(document: Path) -> None:
    """No private word stands in a document, outside of code and of tables that are made from the code."""
    text = re.sub(r"<!-- [a-z ]+: made from .*?<!-- end of", "", document.read_text(), flags=re.DOTALL)
    text = "\n".join(sentences(text)).lower()
    assert [word for word in PRIVATE_WORDS if re.search(rf"\b{re.escape(word)}\b", text)] == []


# --- links


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

"""The fenced blocks of Markdown documents, and a terminal to paste them into."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import in_use

_FENCE = re.compile(r"^( *)(```+)(.*)$")
_COMMENT = re.compile(r"<!-- *(.*?) *-->")
_PORT = re.compile(r"--port (\d+)")
_TIMEOUT = 60.0
_FAILED = "command failed:"
_DONE = "block pasted"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        language: the first word after the fence; empty if there is none.
        not_run: why it cannot be run by a test, from the comment `<!-- not run: REASON -->` before it; None if it can.
        terminal: 1 if the comment `<!-- terminal 1 -->` is before it: it runs until the session ends. Else 2.
    """

    document: Path
    line: int
    language: str
    heading: str
    text: str
    not_run: str | None = None
    terminal: int = 2

    @property
    def ports(self) -> list[int]:
        return [int(port) for port in _PORT.findall(self.text)]


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document, in its order.

    Raises:
        ValueError: a fence is not closed, or a comment before it is not known.
    """
    found: list[Block] = []
    heading = comment = ""
    lines = iter(enumerate(document.read_text().splitlines(), 1))
    for number, line in lines:
        if fence := _FENCE.match(line):
            body = []
            for _, inside in lines:
                if inside.strip() == fence[2]:
                    break
                body.append(inside.removeprefix(fence[1]))
            else:
                raise ValueError(f"{document}:{number}: the fence is not closed")
            text = "".join(f"{inside}\n" for inside in body)
            language = fence[3].split()[0] if fence[3].strip() else ""
            found.append(Block(document, number, language, heading, text, *_marks(document, number, comment)))
        elif line.startswith("#"):
            heading = line.lstrip("# ")
        marked = _COMMENT.fullmatch(line.strip())
        comment = marked[1] if marked else ""
    return found


def _marks(document: Path, line: int, comment: str) -> tuple[str | None, int]:
    if not comment:
        return None, 2
    if comment == "terminal 1":
        return None, 1
    kind, colon, reason = comment.partition(": ")
    if kind == "not run" and colon and len(reason.split()) >= 3:
        return reason, 2
    raise ValueError(f"{document}:{line}: not a mark of a block: {comment}")


class Terminal:
    """A bash that reads what is pasted, in a folder that looks like a clone after `make demo`."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._stdin, self._stdout = self._shell.stdin, self._shell.stdout
        self._output: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._write(f"set -o pipefail; trap 'echo \"{_FAILED} $BASH_COMMAND\"' ERR\n")

    def _read(self) -> None:
        for line in self._stdout:
            with self._changed:
                self._output.append(line)
                self._changed.notify_all()

    def _write(self, text: str) -> None:
        self._stdin.write(text)
        self._stdin.flush()

    def start(self, block: Block) -> None:
        """Paste a block that does not end by itself, and wait until its ports accept connections."""
        self._write(block.text)
        self._wait_for_ports(block)

    def run(self, block: Block) -> str:
        """Paste a block, wait until it is through and its ports accept connections.

        Returns:
            What it wrote.

        Raises:
            AssertionError: one of its commands failed, or it is not through in time.
        """
        with self._changed:
            before = len(self._output)
        # What it wrote last may have no line end.
        self._write(block.text + f"printf '\\n{_DONE}\\n'\n")
        with self._changed:
            through = self._changed.wait_for(lambda: f"{_DONE}\n" in self._output[before:], _TIMEOUT)
            output = "".join(line for line in self._output[before:] if line != f"{_DONE}\n").removesuffix("\n")
        where = f"{block.document}:{block.line}"
        assert through, f"{where}: not through after {_TIMEOUT:.0f} s:\n{output}"
        assert _FAILED not in output, f"{where}:\n{output}"
        self._wait_for_ports(block)
        return output

    def _wait_for_ports(self, block: Block) -> None:
        deadline = time.monotonic() + _TIMEOUT
        for port in block.ports:
            while not in_use(port):
                with self._changed:
                    output = "".join(self._output)
                assert time.monotonic() < deadline, f"{block.document}:{block.line}: port {port} is closed:\n{output}"
                time.sleep(0.02)

    def close(self) -> None:
        """End the shell and whatever it started."""
        for first in (signal.SIGTERM, signal.SIGKILL):
            number: int = first
            deadline = time.monotonic() + 20
            while self._signal(number) and time.monotonic() < deadline:
                time.sleep(0.05)
                number = 0
        self._reader.join()
        self._stdin.close()
        self._stdout.close()

    def _signal(self, number: int) -> bool:
        """Send a signal to all processes of the shell's group; 0 only asks. Return whether there is one."""
        self._shell.poll()
        try:
            os.killpg(self._shell.pid, number)
        except ProcessLookupError:
            return False
        return True


def clone(root: Path, folder: Path) -> None:
    """Make a folder look like a clone in which `make demo` has set up `.venv`, by links."""
    for entry in root.iterdir():
        if entry.name not in (".git", ".venv", "dist", "serve.log", "webhooks.log"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(sys.prefix)


def new_user(home: Path) -> dict[str, str]:
    """Return the environment of a user who has set nothing; `make` takes the set-up as done."""
    path = os.pathsep.join(part for part in os.defpath.split(os.pathsep) if part) + ":/usr/local/bin"
    return {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "MAKEFLAGS": "-o .venv/run.stamp"}


def sentences(text: str) -> Iterator[str]:
    """Return the sentences of a Markdown text: of paragraphs, list items, headings and cells, without code."""
    text = re.sub(r"^( *)```.*?^\1```$", "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "CODE", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^#+ (.*)$", r"\n\n\1\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*(?:[-*] |\d+\. )", "\n\n", text, flags=re.MULTILINE).replace("|", "\n\n")
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])\**\s+", " ".join(paragraph.split())):
            if re.search(r"\w", sentence):
                yield sentence

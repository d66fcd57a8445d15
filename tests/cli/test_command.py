"""The command as a whole: help, exit codes, colour, and what happens to it in a pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click
import pytest

import handler
from handler import cli
from handler.simulator import CallKind, Fault, Simulator
from tests.cli.conftest import environ, signalled, start

_COMMANDS = [
    "demo",
    "demo-chat",
    "simulate",
    "serve",
    "doctor",
    "plan",
    "send",
    "keep",
    "approve",
    "explain",
    "settings",
    "completion",
]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """With the name of the command, and exit code 0."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bms-autostop {handler.__version__}\n"


def test_help_lists_every_command_in_one_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns none is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    listed = out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == _COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", _COMMANDS)
def test_each_command_explains_its_options_and_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option has a help text."""
    assert cli.main([name, "-h"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: bms-autostop {name}")
    command = cli.command.get_command(click.Context(cli.command), name)
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert [option.opts for option in options if not option.help] == []
    if name not in ("settings", "completion"):
        assert command.epilog is not None
        assert command.epilog.startswith("Exit code:")


@pytest.mark.parametrize("arguments", [[], ["stop"], ["--nothing"], ["plan"], ["explain"], ["completion", "csh"]])
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And shows how it is used."""
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("Usage: bms-autostop")


@pytest.mark.parametrize(("name", "function"), [("demo", "stop.demo"), ("demo-chat", "chat.demo_chat")])
def test_the_exit_code_of_a_demo_is_that_of_the_command(
    name: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `make demo` fails if something comes out otherwise."""
    monkeypatch.setattr(f"handler.demo.{function}", lambda: 7)
    assert cli.main([name]) == 7


# --- what is loaded


def _modules(*arguments: str) -> set[str]:
    """Return the modules that are loaded once a command has run."""
    code = (
        "import sys\n"
        "from handler.cli import main\n"
        "main(sys.argv[1:])\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environ(), capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stderr.split())


def test_help_loads_no_http_client_and_no_cloud() -> None:
    """So that it and the completion of a shell are there at once."""
    loaded = _modules("--help")
    assert "handler.cli.plan" in loaded
    assert not loaded & {"requests", "urllib3", "cloudevents", "flask", "handler.simulator", "handler.settings.common"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--name", "ci-*"],
        ["doctor"],
        ["send", "--url", "http://127.0.0.1:9/", "--dry-run", "--name", "ci-*"],
    ],
)
def test_no_web_framework_is_loaded_to_call_something(cloud: Simulator, arguments: list[str]) -> None:
    """It is what serves, and nothing is served here."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environ().items():
            patch.setenv(name, value)
        loaded = _modules(*arguments)
    assert {"handler.http_client", "requests"} <= loaded
    assert not {name for name in loaded if name.partition(".")[0] in ("flask", "werkzeug", "functions_framework")}


# --- pipes and signals


@pytest.mark.parametrize("arguments", [["settings"], ["demo"], ["--help"]])
def test_a_closed_pipe_ends_it_without_a_traceback(arguments: list[str]) -> None:
    """As `| head -1` does; 141 is what a shell reports of SIGPIPE."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "handler.cli", *arguments],
        env=environ(),
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == (1 if arguments == ["--help"] else 141)


def test_ctrl_c_ends_it_without_a_traceback(cloud: Simulator) -> None:
    """At once, while the cloud is waited for; a shell reports 130 of it."""
    cloud.inject(Fault(on=CallKind.LOGIN, delay=60, times=None))
    command = start("plan", "--name", "ci-*", env=environ(**cloud.environ()))
    deadline = time.monotonic() + 60
    while not cloud.count(CallKind.LOGIN) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert signalled(command, signal.SIGINT) == (-signal.SIGINT, "\n")


def test_a_terminal_that_lacks_a_character_shows_its_number() -> None:
    """Instead of a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "handler.cli", "explain", "\u2192"],
        env=environ(PYTHONIOENCODING="iso8859-1", PYTHONUTF8="0"),
        capture_output=True,
        encoding="iso8859-1",
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(r"Not a reason, refusal or problem: '\u2192'.")


# --- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It calls the command with the variable that click uses."""
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_BMS_AUTOSTOP_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bms-autostop e", "plain,explain"),
        ("bms-autostop explain already-", "plain,already-stopped\nplain,already-stopping\nplain,already-kept"),
        ("bms-autostop serve --target r", "plain,receive_webhook"),
    ],
)
def test_completion_completes(words: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, words of the runbook, and the values of an option."""
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv("_BMS_AUTOSTOP_COMPLETE", "bash_complete")
    done = subprocess.run(
        [sys.executable, "-m", "handler.cli"], env=environ(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == expected

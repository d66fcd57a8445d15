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
from tests.cli.conftest import Run, signalled, start
from tests.support.process import environment

_COMMANDS = [
    *("demo", "demo-chat", "simulate", "serve", "doctor", "plan", "send", "keep", "approve"),
    *("explain", "settings", "completion"),
]


def _process(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "handler.cli", *arguments]
    encoding = variables.get("PYTHONIOENCODING", "utf-8")
    env = environment(**variables)
    return subprocess.run(program, env=env, capture_output=True, encoding=encoding, timeout=60, check=False)


def test_the_version_is_printed(run: Run) -> None:
    """With the name of the command, and exit code 0."""
    assert run("--version") == (0, f"bms-autostop {handler.__version__}\n", "")


def test_help_lists_every_command_in_one_line_each(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns none is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    out = run("--help").out
    listed = out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == _COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", _COMMANDS)
def test_each_command_explains_its_options_and_exit_codes(name: str, run: Run) -> None:
    """Every option has a help text."""
    assert run(name, "-h").out.startswith(f"Usage: bms-autostop {name}")
    command = cli.command.get_command(click.Context(cli.command), name)
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert [option.opts for option in options if not option.help] == []
    if name not in ("settings", "completion"):
        assert command.epilog is not None
        assert command.epilog.startswith("Exit code:")


@pytest.mark.parametrize("arguments", [[], ["stop"], ["--nothing"], ["plan"], ["explain"], ["completion", "csh"]])
def test_a_wrong_command_line_ends_with_2(arguments: list[str], run: Run) -> None:
    """And shows how it is used."""
    ran = run(*arguments)
    assert (ran.code, ran.err.startswith("Usage: bms-autostop")) == (2, True)


@pytest.mark.parametrize(("name", "function"), [("demo", "stop.demo"), ("demo-chat", "chat.demo_chat")])
def test_the_exit_code_of_a_demo_is_that_of_the_command(
    name: str, function: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `make demo` fails if a result is not as expected."""
    monkeypatch.setattr(f"handler.demo.{function}", lambda: 7)
    assert run(name).code == 7


# --- what is loaded


def _modules(*arguments: str, **variables: str) -> set[str]:
    """Return the modules that are loaded once a command has run."""
    code = "import sys\nfrom handler.cli import main\nmain(sys.argv[1:])\nprint(*sys.modules, file=sys.stderr)\n"
    program = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(program, env=environment(**variables), capture_output=True, text=True, timeout=60, check=True)
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
    loaded = _modules(*arguments, **cloud.environ())
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
        env=environment(),
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
    command = start("plan", "--name", "ci-*", env=environment(**cloud.environ()))
    deadline = time.monotonic() + 60
    while not cloud.count(CallKind.LOGIN) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert signalled(command, signal.SIGINT) == (-signal.SIGINT, "\n")


def test_a_terminal_that_lacks_a_character_shows_its_number() -> None:
    """Instead of a traceback."""
    done = _process("explain", "\u2192", PYTHONIOENCODING="iso8859-1", PYTHONUTF8="0")
    assert done.returncode == 2
    assert done.stderr.startswith(r"Not a reason, refusal or problem: '\u2192'.")


# --- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, run: Run) -> None:
    """It calls the command with the variable that click uses."""
    assert f"_BMS_AUTOSTOP_COMPLETE={shell}_complete" in run("completion", shell).out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bms-autostop e", "plain,explain"),
        ("bms-autostop explain already-", "plain,already-stopped\nplain,already-stopping\nplain,already-kept"),
        ("bms-autostop serve --target r", "plain,receive_webhook"),
    ],
)
def test_completion_completes(words: str, expected: str) -> None:
    """Commands, words of the runbook, and the values of an option."""
    position = str(len(words.split()) - 1)
    done = _process(COMP_WORDS=words, COMP_CWORD=position, _BMS_AUTOSTOP_COMPLETE="bash_complete")
    assert done.stdout.strip() == expected

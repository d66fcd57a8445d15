"""The `bms-autostop` command: demo, simulate, serve, plan, doctor."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from handler import __version__
from handler.errors import AutostopError, BadEvent, RetryableError
from handler.settings.env import SettingsError

_MAIN = Path(__file__).with_name("main.py")
_PLAN_BUDGET = 10.0


class Exit(IntEnum):
    """Exit codes, for scripts."""

    FINE = 0
    SERVER_FAILS = 1
    SETTINGS = 2
    EVENT = 3
    CLOUD = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        An exit code; of `plan`: 0 nothing stands in the way, 1 at least one server would fail, 2 the settings or the
        command line are wrong, 3 the event is malformed or would be refused, 4 the cloud could not be asked.
    """
    parser = argparse.ArgumentParser(
        prog="bms-autostop",
        description="Stops bare metal servers when an event asks for it. A stop is a forced power cut.",
    )
    parser.add_argument("--version", action="version", version=f"bms-autostop {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="show it work on a simulated cloud; no account needed")
    commands.add_parser("demo-chat", help="the same from a command in a chat, and an alarm, to what the chat is told")
    simulate = commands.add_parser("simulate", help="run the simulated cloud alone")
    simulate.add_argument(
        "--host",
        default="127.0.0.1",
        help="name or address to listen on, which its catalogue gives to clients; who reaches it can do all it can",
    )
    simulate.add_argument("--port", type=_port, default=8774)
    simulate.add_argument("--servers", type=int, default=3, help="how many active servers it begins with")
    simulate.add_argument("--password", help="of its user `operator`, so that others know it; else a random one")
    simulate.add_argument("--power-off-delay", type=float, default=2.0, metavar="SECONDS")
    serve = commands.add_parser("serve", help="serve the function, with settings from the environment")
    serve.add_argument("--host", default="127.0.0.1")
    # As text, so that argparse reads it, and only for this command.
    serve.add_argument("--port", type=_port, default=os.environ.get("PORT") or "8080")
    commands.add_parser(
        "doctor",
        help="check settings, network, login and permissions; stops nothing",
        description="Stops nothing. Exit code: 0 all is well, 1 something is wrong, 2 the settings are.",
    )
    plan = commands.add_parser(
        "plan",
        help="say what an event would do to each server, and why; changes nothing",
        description="Read-only. Exit code: 0 nothing stands in the way, 1 at least one server would fail, "
        "2 settings or command line wrong, 3 event malformed or refused, 4 cloud could not be asked.",
    )
    plan.add_argument("event", metavar="EVENT.json", help="a CloudEvent in structured mode; - for standard input")
    plan.add_argument("--json", action="store_true", help="print the data of the result event instead of a table")
    chosen = parser.parse_args(arguments)
    match chosen.command:
        case "demo":
            from handler.demo import demo

            return demo()
        case "demo-chat":
            from handler.demo_chat import demo_chat

            return demo_chat()
        case "simulate":
            return _simulate(chosen.host, chosen.port, chosen.servers, chosen.power_off_delay, chosen.password)
    try:
        match chosen.command:
            case "serve":
                return _serve(chosen.host, chosen.port)
            case "doctor":
                return _doctor(os.environ)
            case _:
                return _plan(chosen.event, chosen.json, os.environ)
    except SettingsError as error:
        return _complain("The settings are not valid:", error.violations, Exit.SETTINGS)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("is no port from 0 to 65535")
    return int(text)


def _simulate(host: str, port: int, servers: int, power_off_delay: float, password: str | None) -> int:
    import uuid

    from handler.simulator import Simulator

    cannot = "The simulated cloud cannot run:"
    if host in ("", "0.0.0.0", "::"):
        return _complain(cannot, ["--host: must be a name or address that clients can call"], Exit.SETTINGS)
    try:
        with Simulator(host=host, port=port, power_off_delay=power_off_delay, password=password) as cloud:
            print("# A simulated cloud. Log in with:")
            for name, value in cloud.environ().items():
                print(f"export {name}='{value}'")
            for number in range(1, servers + 1):
                name = f"bms-{number:02}"
                # The same at each start, so that what names them can be kept.
                print(f"# {name} {cloud.add_server(name, id=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)))} active")
            print("# Ctrl-C ends it.", flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return Exit.FINE
    except OSError as failure:
        return _complain(cannot, [f"{host}, port {port}: {failure}"], Exit.SETTINGS)


def _serve(host: str, port: int) -> int:
    """Become the function: the process is replaced, so signals reach the server directly."""
    from handler.settings.stop_servers import from_environ

    from_environ(os.environ)
    command = [sys.executable, "-m", "functions_framework", "--source", str(_MAIN), "--target", "stop_servers"]
    sys.stdout.flush()
    return os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])


def _doctor(environ: Mapping[str, str]) -> int:
    from handler.doctor import Verdict, examine
    from handler.settings.stop_servers import from_environ

    configured = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **environ})
    print(f"{Verdict.OK:<7}settings")
    wrong = False
    for finding in examine(configured):
        print(f"{finding.verdict:<7}{finding.check}: {finding.said}", flush=True)
        if finding.mend and finding.verdict is not Verdict.OK:
            print(f"       -> {finding.mend}")
        wrong |= finding.verdict is Verdict.WRONG
    if not environ.get("AUTOSTOP_INBOUND_AUTH"):
        print(f"{Verdict.DOUBT:<7}callers: AUTOSTOP_INBOUND_AUTH is not set here; the function will want it")
    return Exit.SERVER_FAILS if wrong else Exit.FINE


def _plan(file: str, as_json: bool, environ: Mapping[str, str]) -> int:
    from handler.inbound.cloudevents.decode import decode
    from handler.inbound.extract import Ignored, extract
    from handler.outbound.result import result_data
    from handler.outbound.table import table
    from handler.services.stop_servers import Service
    from handler.settings.stop_servers import from_environ

    # There are no callers here.
    configured = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **environ, "AUTOSTOP_DRY_RUN": "true"})
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as failure:
        return _complain("The event cannot be read:", [str(failure)], Exit.SETTINGS)
    try:
        (event,) = decode({"content-type": "application/cloudevents+json"}, body).events
        try:
            asked = extract(event, configured.event_types)
        except BadEvent as bad:
            raise BadEvent(*event.violations, *bad.violations) from None
        if event.violations:
            raise BadEvent(*event.violations)
        if isinstance(asked, Ignored):
            return _complain("The event would be ignored:", [asked.why], Exit.EVENT)
        report = Service(configured).report(asked, time.monotonic() + _PLAN_BUDGET)
    except BadEvent as bad:
        return _complain(
            "The event can never succeed:",
            [f"{violation.at}: {violation.fault}" for violation in bad.violations],
            Exit.EVENT,
        )
    except RetryableError as trouble:
        return _complain("The cloud could not be asked:", [f"{trouble.name}: {trouble}"], Exit.CLOUD)
    except AutostopError as error:
        return _complain("The event can never succeed:", [str(error)], Exit.EVENT)
    print(json.dumps(result_data(report), indent=2) if as_json else table(report))
    if report.refusal:
        return Exit.EVENT
    return Exit.SERVER_FAILS if report.failed else Exit.FINE


def _complain(what: str, faults: Sequence[str], code: Exit) -> int:
    print(what, *(f"  {fault}" for fault in faults), sep="\n", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

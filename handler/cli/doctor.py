"""`bms-autostop doctor`: check settings, network, login and permissions."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

import click

from handler.cli.checks import Check, OnCheck, Status, error, ok, warning
from handler.cli.events import server_id
from handler.cli.exit_codes import Exit
from handler.cli.settings import Target, declarations, read
from handler.terminal import Progress, counted, escape, terminal_width, wrap

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.ERROR: "red"}
_LOGIN = ("OS_", "RUNTIME_PROJECT_ID", "AUTOSTOP_COMPUTE_URL", "AUTOSTOP_BMS_URL")


@click.command(
    epilog="Exit code: 0 no error (with --strict: and no warning), 1 at least one error (with --strict: or warning), 2 "
    "the settings or the command line are wrong."
)
@click.option(
    "--target",
    "targets",
    type=click.Choice([one.value for one in Target]),
    multiple=True,
    help="Check this function; may be repeated.  [default: those whose settings are set here]",
)
@click.option(
    "--server",
    metavar="ID",
    callback=server_id,
    help="Test the right to stop on this server: if it is stopped already, a stop is sent to it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an array of {check, status, detail, fix}.")
@click.option("--strict", is_flag=True, help="Exit with 1 also if there are only warnings.")
def doctor(targets: tuple[str, ...], server: str | None, as_json: bool, strict: bool) -> int:
    """Check settings, network, login and rights, and say what to do.

    What could not be checked is a warning. Nothing is changed; a stop is sent only to the server that --server names,
    and only if it is stopped already: the cloud answers 409 if the login may stop it, 403 if it may not.
    """
    chosen = [Target(target) for target in targets] or configured(os.environ)
    if server is not None and Target.STOP_SERVERS not in chosen:
        raise click.UsageError("--server is for the target stop_servers.")
    width, found = terminal_width(), []
    invalid = False
    with Progress("checking") as progress:
        for target in chosen:
            if len(chosen) > 1 and not as_json:
                progress.print(click.style(target.value, bold=True))
            prefix = f"{target.value}: " if len(chosen) > 1 and as_json else ""
            for check in examine(target, os.environ, server, progress.on):
                invalid |= check.check == "settings" and check.status is Status.ERROR
                found.append(replace(check, check=f"{prefix}{check.check}"))
                if not as_json:
                    progress.print("\n".join(_lines(check, width)))
    counts = Counter(check.status for check in found)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        click.echo("\n".join(wrap(_summary(counts), width)))
    if invalid:
        return Exit.USAGE
    return Exit.FAILED if counts[Status.ERROR] or (strict and counts[Status.WARNING]) else Exit.OK


def configured(environ: Mapping[str, str]) -> list[Target]:
    """Return the targets that have settings here: that of FUNCTION_TARGET, or each with a setting of its own."""
    named = environ.get("FUNCTION_TARGET", "")
    if named in [*Target]:
        return [Target(named)]
    found = [
        target
        for target in (Target.RECEIVE_WEBHOOK, Target.NOTIFY_CHAT)
        if any(environ.get(one.name) for one in declarations(target) if one.targets == (target,))
    ]
    if not found or any(value and name.startswith(_LOGIN) for name, value in environ.items()):
        found.insert(0, Target.STOP_SERVERS)
    return found


def examine(target: Target, environ: Mapping[str, str], server_id: str | None, on_check: OnCheck) -> Iterator[Check]:
    """Check one target: its settings, and the services that they name; see `cloud.cloud`."""
    from handler.cli.checks import targets
    from handler.settings.env import SettingsError

    callers_unset = target is not Target.RECEIVE_WEBHOOK and not environ.get("AUTOSTOP_INBOUND_AUTH")
    try:
        settings = read(target, {**environ, "AUTOSTOP_INBOUND_AUTH": "none"} if callers_unset else environ)
    except SettingsError as invalid:
        for violation in invalid.violations:
            yield error("settings", violation, f"bms-autostop settings --target {target} lists the settings.")
        return
    yield ok("settings", "valid")
    if callers_unset:
        fix = "Set it where the function runs: the function does not start without it."
        yield warning("callers", "AUTOSTOP_INBOUND_AUTH is not set here", fix)
    match target:
        case Target.STOP_SERVERS:
            checks = targets.stop_servers(settings, server_id, on_check)
        case Target.RECEIVE_WEBHOOK:
            checks = targets.receive_webhook(settings, on_check)
        case Target.NOTIFY_CHAT:
            checks = targets.notify_chat(settings, on_check)
        case Target.KEEP_SERVERS:
            checks = targets.keep_servers(settings, on_check)
    # Without a setting callers cannot be checked; see the warning above.
    yield from (check for check in checks if not (callers_unset and check.check == "callers"))


def _lines(check: Check, width: int) -> Iterator[str]:
    first, *rest = wrap(escape(f"{check.check}: {check.detail}"), width, f"{check.status:<9}", " " * 9)
    label = check.status.value
    yield f"{click.style(label, fg=_COLOURS[check.status])}{first[len(label) :]}"
    yield from rest
    if check.fix and check.status is not Status.OK:
        yield from wrap(escape(check.fix), width, " " * 9 + "-> ")


def _summary(counts: Mapping[Status, int]) -> str:
    total = counted(sum(counts.values()), "check")
    warnings, errors = counted(counts.get(Status.WARNING, 0), "warning"), counted(counts.get(Status.ERROR, 0), "error")
    return f"{total}: {counts.get(Status.OK, 0)} ok, {warnings}, {errors}."

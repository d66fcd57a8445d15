"""The cloud, from the identity service to the right to stop a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TypeVar

from handler.cli.checks import TIMEOUT, Check, OnCheck, error, network, ok, warning
from handler.cloud.auth.keystone import asked
from handler.cloud.auth.login import Token, identity_url
from handler.cloud.connect import Clouds
from handler.cloud.endpoint import BMS, NOVA
from handler.errors import (
    CallDenied,
    CloudError,
    CloudUnexpectedAnswer,
    InsecureEndpoint,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.http_client import FAILURES, HttpClient
from handler.settings.login import CloudLogin, LoginKind
from handler.settings.stop_servers import ApiName, Settings
from handler.stop.decide import is_bare_metal, settled_as_stopped
from handler.stop.evidence import History
from handler.stop.model import Power, Server
from handler.stop.ports import DryRunStop, Taken
from handler.terminal import counted

_Answer = TypeVar("_Answer")

# A version 4 UUID in form, but not one that a random generator would return.
_UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
_LOGIN_FIXES = {
    LoginKind.PASSWORD: "Check OS_USERNAME, OS_USER_DOMAIN_NAME and OS_PASSWORD. More tries may lock the user.",
    LoginKind.APPLICATION_CREDENTIAL: "Check OS_APPLICATION_CREDENTIAL_ID and _SECRET, and whether it has expired.",
    LoginKind.ACCESS_KEY: "Check OS_ACCESS_KEY and OS_SECRET_KEY. More tries may lock the key.",
    LoginKind.CLOUDS_YAML: "Check the entry of clouds.yaml that OS_CLOUD names.",
}
_UNAUTHORIZED = 401


def cloud(settings: Settings, server_id: str | None, on_check: OnCheck) -> Iterator[Check]:
    """Check the cloud; ends early where the rest would repeat the same error.

    The permission to stop is tested on the server with the id `server_id`, if it is stopped already.
    """
    login = settings.login
    if login.kind is LoginKind.FUNCTIONGRAPH:
        detail = "FunctionGraph passes a login with each call; it cannot be checked here"
        yield warning("login", detail, "Call the function with a dry run and look at its result.")
        return
    if login.auth_url:
        on_check("IAM")
        yield from network.in_clear("IAM", login.auth_url, "the login", "Set OS_AUTH_URL to an https URL.")
        reached = network.reachable("IAM", login.auth_url, login.verify)
        yield reached
        if reached.status == "error":
            return
        on_check("clock")
        yield network.clock(login.auth_url, login.verify)
    else:
        yield warning("clock", "not compared: it is not set here where IAM is", "Compare it by hand.")
    on_check("login")
    try:
        caller = _Caller(settings)
    except Exception as failure:
        # openstacksdk has exceptions of its own for errors in clouds.yaml; their texts may quote it.
        if login.kind is not LoginKind.CLOUDS_YAML:
            raise
        detail = f"clouds.yaml has no usable entry {login.cloud} ({type(failure).__name__})"
        yield error("login", detail, "Check OS_CLOUD and clouds.yaml: openstack --os-cloud NAME token issue.")
        return
    access = caller.call(lambda clouds: clouds.login.access(TIMEOUT))
    if isinstance(access, CloudError):
        yield _login_error(login, access)
        return
    yield (logged_in := _logged_in(access))
    if logged_in.status == "error":
        return
    on_check("endpoint")
    url = caller.call(lambda clouds: clouds.endpoint.url(TIMEOUT))
    if isinstance(url, CloudError):
        yield _endpoint_error(settings, access, url)
        return
    name = "BMS" if settings.api is ApiName.BMS else "Nova"
    yield ok("endpoint", f"{name} is at {url}")
    yield from network.in_clear("endpoint", url, "the token", f"Set {_url_setting(settings)} to an https URL.")
    on_check(name)
    reached = network.reachable(name, url, login.verify)
    yield reached
    if reached.status != "error":
        yield from _rights(settings, caller, server_id, on_check)


class _Caller:
    """Makes calls to the cloud, also after a refused one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clouds = Clouds(settings)

    def call(self, make: Callable[[Clouds], _Answer]) -> _Answer | CloudError:
        """Make a call; return its error if it fails."""
        try:
            return make(self._clouds)
        except CloudError as failure:
            if isinstance(failure, LoginRefused):
                # The function would not use this login for a minute.
                self._clouds = Clouds(self._settings)
            return failure


def _login_error(login: CloudLogin, failure: CloudError) -> Check:
    if not isinstance(failure, LoginRefused):
        return error("login", str(failure), "Check OS_AUTH_URL; it ends in /v3.")
    if login.kind is LoginKind.PASSWORD and failure.status == _UNAUTHORIZED and (found := _wrong_project(login)):
        return found
    return error("login", str(failure), _LOGIN_FIXES.get(login.kind, "Check OS_TOKEN: it may have expired."))


def _wrong_project(login: CloudLogin) -> Check | None:
    """Distinguish a wrong project from a wrong password, which Keystone answers alike, by a login without a project.

    Returns:
        The error if user and password are right; else None.
    """
    client = HttpClient(verify=login.verify, pool=1)
    base = identity_url(login.auth_url)
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    body = json.dumps({"auth": {**asked(login), "scope": "unscoped"}}).encode()
    try:
        answer = client.send("POST", f"{base}/auth/tokens", headers=headers, body=body, timeout=TIMEOUT)
        token = answer.headers.get("X-Subject-Token")
        if not 200 <= answer.status < 300 or not token:
            return None
        projects = client.send("GET", f"{base}/auth/projects", headers={"X-Auth-Token": token}, timeout=TIMEOUT)
        names = _project_names(projects.body) if projects.status == 200 else []
    except FAILURES:
        return None
    finally:
        client.close()
    named = login.project_id or login.project_name
    detail = f"user and password are right, but there is no project {named}, or the user has no role in it"
    fix = "Check OS_PROJECT_NAME (or _ID) and OS_PROJECT_DOMAIN_NAME"
    return error("login", detail, f"{fix}; the user's projects: {', '.join(names)}." if names else f"{fix}.")


def _project_names(body: bytes) -> list[str]:
    try:
        return sorted(str(project["name"]) for project in json.loads(body)["projects"])
    except (ValueError, KeyError, TypeError):
        return []


def _logged_in(access: Token) -> Check:
    roles = ", ".join(access.roles)
    if set(access.roles) == {"reader"}:
        fix = "Give the user a role that may stop servers, such as member."
        return error("login", f"project {access.project_id}, with no role but reader", fix)
    text = f"project {access.project_id}" if access.project_id else "the project of the login is not known"
    return ok("login", f"{text}, roles {roles}" if roles else text)


def _url_setting(settings: Settings) -> str:
    return "AUTOSTOP_BMS_URL" if settings.api is ApiName.BMS else "AUTOSTOP_COMPUTE_URL"


def _endpoint_error(settings: Settings, access: Token, failure: CloudError) -> Check:
    if isinstance(failure, InsecureEndpoint):
        fix = f"Have the catalogue corrected, or set {_url_setting(settings)} to that URL, to accept it."
        return error("endpoint", str(failure), fix)
    wanted = (BMS if settings.api is ApiName.BMS else NOVA).service_type
    regions = sorted({place.region for place in access.catalogue or () if place.service_type == wanted})
    region = settings.login.region
    if region and regions and region not in regions:
        detail = f"the catalogue has no {wanted} endpoint in the region {region}"
        return error("endpoint", detail, f"Set OS_REGION_NAME to one of: {', '.join(regions)}.")
    fix = f"Check OS_REGION_NAME and OS_INTERFACE, or set {_url_setting(settings)}."
    return error("endpoint", str(failure), fix)


def _rights(settings: Settings, caller: _Caller, server_id: str | None, on_check: OnCheck) -> Iterator[Check]:
    """Check the permissions of the login; all but the last one with calls that only read."""
    on_check("list")
    page = caller.call(lambda clouds: clouds.reader().peek(TIMEOUT))
    if isinstance(page, CloudError):
        if (isinstance(page, LoginRefused) or page.status == _UNAUTHORIZED) and not _token_accepted(caller):
            fix = "Is the endpoint of the same cloud as OS_AUTH_URL?"
            yield error("token", f"the API does not accept this login's token: {page}", fix)
            return
        yield _failed("list", page, settings, "ecs:servers:list or bms:servers:list", "GET /servers/detail")
        if isinstance(page, CloudUnexpectedAnswer):
            # Not the API at all: the other calls would fail in the same way.
            return
        seen = []
    else:
        seen = [server for server in page if isinstance(server, Server)]
        yield _listed(len(page), seen)
        yield from _bare_metal(settings, seen)
    known = server_id or (seen[0].id if seen else None)
    if known is None:
        fix = "Name a server of the project: bms-autostop doctor --server ID."
        for check in ("read", "history"):
            yield warning(check, "not checked: no server is known", fix)
    else:
        on_check("read")
        found = caller.call(lambda clouds: clouds.reader().read([known], TIMEOUT).get(known))
        yield _read(settings, known, found)
        if not isinstance(found, ServerNotFound):
            on_check("history")
            yield _history(settings, caller, known)
    on_check("stop")
    yield _stop(settings, caller, server_id, next((server.id for server in seen if _stopped(server)), "ID"))


def _stopped(server: Server) -> bool:
    """Whether a stop could do nothing to it: a server that is recorded as stopped may have its power on."""
    return server.task_state is None and settled_as_stopped(server) and server.power is Power.OFF


def _token_accepted(caller: _Caller) -> bool:
    """Whether the API accepts the token for another call: Nova answers that there is no such server."""
    found = caller.call(lambda clouds: clouds.reader().read([_UNKNOWN_ID], TIMEOUT).get(_UNKNOWN_ID))
    return isinstance(found, ServerNotFound)


def _listed(shown: int, seen: list[Server]) -> Check:
    if shown and not seen:
        fix = "Check the URL; Nova must support microversion 2.26 (Newton, 2016) or newer."
        return error("list", "servers are shown without tags, lock or states", fix)
    return ok("list", f"{counted(len(seen), 'server')} on the first page")


def _bare_metal(settings: Settings, seen: list[Server]) -> Iterator[Check]:
    count = sum(map(is_bare_metal, seen))
    if not settings.policy.bare_metal_only:
        yield ok("bare metal", "AUTOSTOP_BARE_METAL_ONLY is off: virtual servers are stopped too")
    elif count:
        yield ok("bare metal", f"{count} of the servers on the first page")
    elif not seen:
        yield warning(
            "bare metal", "0 bare metal servers: the project shows no server", "Check the project: OS_PROJECT_NAME."
        )
    else:
        detail = f"0 bare metal servers among {len(seen)}: each would be skipped/not-bare-metal"
        fix = (
            "A server counts as bare metal by its flavor's name (physical.*), or the tag or metadata of Open Telekom "
            "Cloud. On another cloud set AUTOSTOP_BARE_METAL_ONLY=false: then all servers of the project can be "
            "stopped."
        )
        yield warning("bare metal", detail, fix)


def _read(settings: Settings, server_id: str, found: object) -> Check:
    match found:
        case Server():
            return ok("read", f"{server_id} is in the state {found.vm_state}")
        case ServerNotFound():
            fix = "Check the id and OS_PROJECT_NAME (or _ID): the login sees the servers of its own project only."
            return error("read", f"there is no server {server_id} in the project", fix)
        case CloudError():
            return _failed("read", found, settings, "ecs:servers:get or bms:servers:get", "GET /servers/*")
        case _:
            return warning("read", f"{server_id} was not shown", "Try again.")


def _history(settings: Settings, caller: _Caller, server_id: str) -> Check:
    found = caller.call(lambda clouds: clouds.reader().history(server_id, TIMEOUT))
    fix = "Without it a start after the event goes unseen; only the event's age counts (AUTOSTOP_MAX_EVENT_AGE)."
    match found:
        case History(actions=tuple(actions)):
            return ok("history", f"{len(actions)} entr{'ies' if len(actions) != 1 else 'y'} of {server_id}")
        case History():
            why = "BMS v1 has none" if settings.api is ApiName.BMS else found.gap.value
            return warning("history", f"no history of servers ({why})", fix)
        case CloudError() if _denied(found):
            failed = _failed("history", found, settings, "", "GET /servers/*/os-instance-actions")
            return warning("history", failed.detail, f"{failed.fix} {fix}".strip())
        case _:
            return warning("history", str(found), fix)


def _stop(settings: Settings, caller: _Caller, server_id: str | None, example: str) -> Check:
    """Test the permission to stop on a server that is stopped already: then Nova answers 409 if it is permitted.

    An unknown id is of no use: Nova answers 404 before it checks permissions. The advice names `example`.
    """
    advice = (
        f"Name a server that is stopped already, to which a stop is then sent: bms-autostop doctor --server {example}"
    )
    if server_id is None:
        return warning("stop", "the right to stop was not tested", advice)
    # Read again right before, so that a server that was started meanwhile is not stopped.
    found = caller.call(lambda clouds: clouds.reader().read([server_id], TIMEOUT).get(server_id))
    if not isinstance(found, Server):
        return warning("stop", "the right to stop was not tested: the server could not be read", advice)
    if not _stopped(found):
        task = f" ({found.task_state})" if found.task_state else ""
        power = "" if found.power is Power.OFF else f" (power {found.power})"
        detail = f"the server is {found.vm_state}{task}{power}, not stopped with its power off"
        return warning("stop", f"the right to stop was not tested: {detail}", advice)
    answer = caller.call(lambda clouds: clouds.cloud(dry_run=False).stop([server_id], TIMEOUT).get(server_id))
    sent = f"a stop was sent to {server_id}, which is stopped already"
    match answer:
        case StateConflict(status=409):
            return ok("stop", f"{sent}: HTTP 409, so it is allowed")
        case CloudError() if _denied(answer):
            return _failed("stop", answer, settings, "ecs:servers:stop or bms:servers:stop", "POST /servers/*/action")
        case Taken() | DryRunStop():
            detail = f"{sent}: it was accepted, where HTTP 409 was expected"
            return warning("stop", detail, "Look at the server, and plan a stop of it.")
        case _:
            return warning("stop", f"{sent}: {answer}. That says nothing about the right to stop", "Try again.")


def _denied(failure: CloudError) -> bool:
    return isinstance(failure, CallDenied | LoginRefused)


def _failed(check: str, failure: CloudError, settings: Settings, action: str, path: str) -> Check:
    """Return a check for a failed call.

    A policy of Open Telekom Cloud must allow `action`; access rules name the call `path`.
    """
    match failure:
        case LoginRefused() | CallDenied(status=401):
            detail = f"{failure}, for this call alone: access rules of the application credential do not allow it"
            return error(check, detail, f"Add an access rule for {path} of the compute service.")
        case CallDenied():
            upstream = "or the rule of Nova's policy.yaml (deploy/policies)"
            return error(check, str(failure), f"Allow the action {action}, {upstream}." if action else "")
        case CloudUnexpectedAnswer(status=406):
            fix = "The function needs microversion 2.26 (Newton, 2016) or newer; is the endpoint the right one?"
            return error(check, f"{failure}: this Nova is too old", fix)
        case CloudUnexpectedAnswer():
            fix = f"Check {_url_setting(settings)} and OS_REGION_NAME: this does not look like the API."
            return error(check, str(failure), fix)
        case _:
            return warning(check, str(failure), "Try again; the cloud may be failing at the moment.")

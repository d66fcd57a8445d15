"""Servers are read and listed through the BMS API as Open Telekom Cloud's reference shows it."""

from functools import partial
from typing import Any

import pytest

from handler.simulator import Api, BmsBehavior, CallKind, Fault, Simulator
from tests.simulator.conftest import UNKNOWN_ID, Ask, Lookup
from tests.support.clock import FakeClock

CLOUD = partial(Simulator, bms=True)
HEADERS = ["Content-Type", "Content-Length", "X-Request-Id"]


@pytest.fixture
def names(bms: Ask) -> Lookup:
    """Send a request for a list, and return how many there are and the names on the page."""

    def listed(query: str = "") -> Any:
        answer = bms(f"baremetalservers/detail{query}")
        assert (answer.status, list(answer.json())) == (200, ["count", "servers"])
        return answer.json()["count"], [server["name"] for server in answer.json()["servers"]]

    return listed


def test_a_server_has_the_form_of_this_api(cloud: Simulator, bms: Ask) -> None:
    """Always tags and locked, no task_state when idle; numbers of the flavor and version of the address are text."""
    tags, flavor_id = ["__type_baremetal"], "9d2f8d0e"
    server_id = cloud.add_server("db-1", tags=tags, metadata={"a": "b"}, flavor=flavor_id, flavor_name="physical.x")
    answer = bms(f"baremetalservers/{server_id}")
    assert (answer.status, answer.names) == (200, HEADERS)
    (server,) = answer.json().values()
    expected = {
        "id": server_id,
        "name": "db-1",
        "status": "ACTIVE",
        "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:power_state": 1,
        "OS-SRV-USG:launched_at": "2025-06-15T15:06:40.000000",
        "tags": tags,
        "locked": False,
        "fault": None,
        "flavor": {"id": flavor_id, "name": "physical.x", "vcpus": "16", "ram": "262144", "disk": "100"},
        "sys_tags": [{"key": "_sys_enterprise_project_id", "value": server["enterprise_project_id"]}],
        "os:scheduler_hints": {},
    }
    assert {name: server[name] for name in expected} == expected
    assert {"links", "OS-EXT-STS:task_state"}.isdisjoint(server)
    assert list(server["image"]) == ["id"]
    ((address,),) = server["addresses"].values()
    assert address["version"] == "4"
    assert set(server["security_groups"][0]) == {"id", "name"}


def test_a_running_operation_and_a_fault_are_shown(cloud: Simulator, bms: Ask) -> None:
    """An idle server has a task_state as well if the cloud is so configured: null."""
    server_id = cloud.add_server(task_state="powering-off")
    assert bms(f"baremetalservers/{server_id}").json()["server"]["OS-EXT-STS:task_state"] == "powering-off"
    cloud.bms.idle_task_state = True
    failed = bms(f"baremetalservers/{cloud.add_server(vm_state='error', host=False)}").json()["server"]
    assert (failed["OS-EXT-STS:task_state"], failed["fault"]["code"]) == (None, 500)


@pytest.mark.parametrize("status", [400, 404])
def test_a_missing_server_has_a_code(cloud: Simulator, bms: Ask, status: int) -> None:
    """The same for an unknown, a deleted, another project's and a virtual one; the status can be chosen."""
    cloud.bms.missing_status = status
    deleted = cloud.add_server()
    cloud.delete_server(deleted)
    foreign = cloud.add_server(project_id=cloud.other_project_id)
    virtual = cloud.add_server(flavor="s3.medium.4")
    error = {"error": {"code": "BMS.0040", "message": "The server does not exist."}}
    for server_id in (UNKNOWN_ID, "not-an-id", deleted, foreign, virtual):
        answer = bms(f"baremetalservers/{server_id}")
        assert (answer.status, answer.names, answer.json()) == (status, HEADERS, error)


def test_only_bare_metal_of_the_project_is_listed(cloud: Simulator, clock: FakeClock, names: Lookup) -> None:
    """The youngest first; it has a tag, or a flavor of a certain name."""
    assert names() == (0, [])
    cloud.add_server("one", flavor="x", tags=["__type_baremetal"])
    clock.advance(1)
    cloud.add_server("two")
    cloud.add_server("virtual", flavor="s3.medium.4")
    cloud.add_server("foreign", project_id=cloud.other_project_id)
    cloud.delete_server(cloud.add_server("gone"))
    assert names() == (2, ["two", "one"])


def test_offset_is_the_number_of_a_page(cloud: Simulator, names: Lookup) -> None:
    """From 1 on; with it, a page has 1000 servers unless a limit is given, and without it 25."""
    for number in range(1030):
        cloud.add_server(f"vm-{number}")
    for query, length, first in [
        ("", 25, "vm-1029"),
        ("?limit=2", 2, "vm-1029"),
        ("?limit=5000", 1000, "vm-1029"),
        ("?offset=1", 1000, "vm-1029"),
        ("?offset=2", 30, "vm-29"),
        ("?offset=3", 0, None),
        ("?offset=2&limit=25", 25, "vm-1004"),
        ("?offset=42&limit=25", 5, "vm-4"),
    ]:
        count, page = names(query)
        assert (count, len(page), next(iter(page), None)) == (1030, length, first), query


@pytest.mark.parametrize("query", ["offset=0", "offset=-1", "offset=x", "limit=0", "limit=", "limit=1.5"])
def test_a_malformed_page_is_refused(bms: Ask, query: str) -> None:
    """With 400."""
    assert bms(f"baremetalservers/detail?{query}").code == (400, "BMS.0018")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=DB", ["db-2", "db-1"]),
        ("name=nothing", []),
        ("status=SHUTOFF", ["web-1"]),
        ("status=active", ["db-2", "db-1"]),
        ("flavor=physical.h2.large", ["db-2"]),
        ("tags=env=test", ["db-2", "db-1"]),
        ("tags=env=test,team", ["db-1"]),
        ("tags=", ["web-1", "db-2", "db-1"]),
        ("name=db&tags=team", ["db-1"]),
        ("reservation_id=r-1", ["web-1", "db-2", "db-1"]),
    ],
)
def test_a_list_can_be_filtered(cloud: Simulator, names: Lookup, query: str, expected: Any) -> None:
    """All filters must match, and all tags; a part of the name is enough."""
    cloud.add_server("db-1", tags=["env=test", "team"])
    cloud.add_server("db-2", tags=["env=test"], flavor="physical.h2.large")
    cloud.add_server("web-1", vm_state="stopped")
    assert names(f"?{query}") == (len(expected), expected)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1"),
        ("GET", "/v1/{project}/baremetalservers"),
        ("GET", "/v1/{project}/baremetalservers/action"),
        ("POST", "/v1/{project}/baremetalservers/detail"),
        ("DELETE", "/v1/{project}/jobs/x"),
    ],
)
def test_the_gateway_has_no_other_path(cloud: Simulator, ask: Ask, method: str, path: str) -> None:
    """And checks that before the token."""
    answer = ask(method, path.format(project=cloud.project_id), token=None)
    assert (answer.code, answer.names) == ((404, "APIG.0101"), HEADERS)
    assert answer.json()["request_id"] == answer.header("X-Request-Id")
    assert (cloud.calls[-1].kind, cloud.calls[-1].api) == (CallKind.OTHER, Api.BMS)


@pytest.mark.parametrize("token", [None, "", "never-seen"], ids=repr)
def test_an_invalid_token_is_refused_by_the_gateway(bms: Ask, token: Any) -> None:
    """In its own form, without a challenge."""
    answer = bms("baremetalservers/detail", token=token)
    assert (answer.code, answer.header("WWW-Authenticate")) == ((401, "APIG.0301"), None)


def test_the_gateway_distinguishes_a_revoked_token_from_an_expired_one(
    cloud: Simulator, bms: Ask, clock: FakeClock
) -> None:
    """The one must be renewed, the other cannot be decrypted any more."""
    expired, revoked = cloud.token(), cloud.token()
    cloud.inject(Fault.token_expired(CallKind.LIST))
    assert bms("baremetalservers/detail", token=revoked).code == (401, "APIG.0307")
    clock.advance(3600)
    assert bms("baremetalservers/detail", token=expired).code == (401, "APIG.0301")
    fresh = cloud.token()
    cloud.revoke_tokens()
    assert bms("baremetalservers/detail", token=fresh).code == (401, "APIG.0307")


def test_the_project_of_the_token_must_be_that_of_the_url(cloud: Simulator, ask: Ask, bms: Ask) -> None:
    """Also for administrators, and for a token without a project."""
    for token in (cloud.token(), cloud.token("admin")):
        answer = ask("GET", f"/v1/{cloud.other_project_id}/baremetalservers/detail", token=token)
        assert answer.code == (400, "Common.0018")
    assert bms("jobs/x", token=cloud.token(scoped=False)).code == (400, "Common.0018")


def test_a_cloud_without_the_api_has_no_such_path(ask: Ask) -> None:
    """The attribute `bms` is there, without effect."""
    with Simulator() as plain:
        assert plain.bms == BmsBehavior()
        behavior = BmsBehavior(job_id=False)
        assert Simulator(bms=behavior).bms is behavior
        answer = ask("GET", f"/v1/{plain.project_id}/baremetalservers/detail", to=plain, token=plain.token())
        assert (answer.status, answer.header("Content-Type")) == (404, "text/html; charset=utf-8")
        assert plain.calls[-1].api is Api.KEYSTONE


@pytest.mark.parametrize(
    ("path", "kind", "about"),
    [
        ("/v1/{project}/baremetalservers/detail", CallKind.LIST, None),
        ("/v1/{project}/baremetalservers/x", CallKind.READ, "x"),
        ("/v1/{project}/jobs/x", CallKind.JOB, None),
        ("/v2.1/{project}/servers/detail", CallKind.LIST, None),
        ("/v2.1/{project}/servers/x", CallKind.READ, "x"),
    ],
)
def test_a_call_is_of_the_same_kind_whichever_api_it_goes_to(
    cloud: Simulator, ask: Ask, path: str, kind: Any, about: Any
) -> None:
    """So that a fault is for both, unless it names one."""
    api = Api.BMS if path.startswith("/v1") else Api.NOVA
    other = Api.NOVA if api is Api.BMS else Api.BMS
    cloud.inject(Fault(on=kind, status=418, times=None, api=other))
    cloud.inject(Fault(on=kind, status=419, times=None))
    assert ask("GET", path.format(project=cloud.project_id)).status == 419
    call = cloud.calls[-1]
    assert (call.kind, call.api, call.server_id) == (kind, api, about)
    assert call.server_ids == ((about,) if about else ())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BMS.0018"),
        (403, "BMS.0288"),
        (404, "BMS.0040"),
        (409, "BMS.1007"),
        (500, "BMS.1007"),
        (401, "APIG.0301"),
        (429, "APIG.0308"),
        (502, "APIG.0202"),
        (503, "APIG.0613"),
        (504, "APIG.0203"),
    ],
)
def test_a_status_is_answered_in_the_form_of_the_gateway_or_of_this_api(
    cloud: Simulator, bms: Ask, status: int, code: str
) -> None:
    """With the message and the headers of the fault, or the usual message."""
    cloud.inject(Fault(on=CallKind.READ, status=status, message="about {id}", headers={"Retry-After": "2"}))
    cloud.inject(Fault(on=CallKind.READ, status=status))
    answers = [bms("baremetalservers/x") for _ in "ab"]
    assert [answer.code for answer in answers] == [(status, code)] * 2
    assert answers[0].header("Retry-After") == "2"
    bodies = [answer.json() for answer in answers]
    messages = [body.get("error_msg") or body["error"]["message"] for body in bodies]
    assert messages[0] == "about x" != messages[1]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("code", "message", "shown"),
    [
        ("BMS.0212", None, "The system is overloaded."),
        ("BMS.9999", None, "Error BMS.9999."),
        ("BMS.9999", "odd", "odd"),
    ],
)
def test_any_code_of_this_api_can_be_injected(
    cloud: Simulator, bms: Ask, ask: Ask, code: str, message: str | None, shown: str, flat: bool
) -> None:
    """For this API alone, with code and message inside an error object or at the top."""
    server_id = cloud.add_server()
    cloud.inject(Fault.bms(CallKind.READ, code, 500, message=message, flat=flat, server_id=server_id))
    assert ask("GET", f"/v2.1/servers/{server_id}").status == 200
    answer = bms(f"baremetalservers/{server_id}")
    error = {"code": code, "message": shown}
    assert (answer.status, answer.json()) == (500, error if flat else {"error": error})
    assert answer.header("X-Request-Id").startswith("req-")


@pytest.mark.parametrize("path", ["/v1/{project}/baremetalservers/x", "/v2.1/servers/x"])
@pytest.mark.parametrize(
    ("code", "retry_after", "message"), [("APIG.0308", 3, "Too many requests"), ("IAM.0012", None, "Error IAM.0012")]
)
def test_any_code_of_the_gateway_can_be_injected(
    cloud: Simulator, ask: Ask, path: str, code: str, retry_after: int | None, message: str
) -> None:
    """Before every API, under the request id of the call."""
    cloud.inject(Fault.gateway_code(CallKind.READ, code, 429, retry_after=retry_after))
    answer = ask("GET", path.format(project=cloud.project_id))
    assert (answer.status, answer.header("Retry-After")) == (429, retry_after and str(retry_after))
    request_id = answer.header("X-Request-Id")
    assert answer.json() == {"error_code": code, "error_msg": message, "request_id": request_id}

"""Servers are read and listed through the BMS API as Open Telekom Cloud's reference shows it."""

from collections.abc import Iterator
from typing import Any

import pytest

from handler.simulator import Api, BmsBehavior, CallKind, Fault, Simulator
from tests.simulator.conftest import Ask, Lookup
from tests.support.clock import FakeClock

NEVER_SEEN = "00000000-0000-4000-8000-000000000000"
HEADERS = ["Content-Type", "Content-Length", "X-Request-Id"]


@pytest.fixture
def cloud(clock: FakeClock) -> Iterator[Simulator]:
    """Open Telekom Cloud with BMS v1."""
    with Simulator(clock=clock, bms=True) as running:
        yield running


@pytest.fixture
def bms(ask: Ask, cloud: Simulator) -> Ask:
    """Ask the BMS API for something of the operator's project."""
    return lambda path, **more: ask("GET", f"/v1/{cloud.project_id}/{path}", **more)


@pytest.fixture
def names(bms: Ask) -> Lookup:
    """Ask for a list and return how many there are and the names on the page."""

    def listed(query: str = "") -> Any:
        answer = bms(f"baremetalservers/detail{query}")
        assert answer.status == 200, answer.body
        assert list(answer.json()) == ["count", "servers"]
        return answer.json()["count"], [server["name"] for server in answer.json()["servers"]]

    return listed


def test_a_server_is_shown_in_the_shape_of_this_api(cloud: Simulator, bms: Ask) -> None:
    """Tags and locked always, no task_state when idle, numbers of the flavor and version of the address as text."""
    server_id = cloud.add_server("db-1", tags=["__type_baremetal"], metadata={"os_type": "Linux"})
    answer = bms(f"baremetalservers/{server_id}")
    assert (answer.status, answer.names) == (200, HEADERS)
    (server,) = answer.json().values()
    assert (server["id"], server["name"], server["status"]) == (server_id, "db-1", "ACTIVE")
    assert "OS-EXT-STS:task_state" not in server
    assert (server["OS-EXT-STS:vm_state"], server["OS-EXT-STS:power_state"]) == ("active", 1)
    assert (server["tags"], server["locked"]) == (["__type_baremetal"], False)
    assert server["flavor"] == {
        "id": "physical.o2.medium",
        "name": "physical.o2.medium",
        "vcpus": "16",
        "ram": "262144",
        "disk": "100",
    }
    assert list(server["image"]) == ["id"]
    ((address,),) = server["addresses"].values()
    assert address["version"] == "4"
    assert set(server["security_groups"][0]) == {"id", "name"}
    assert server["sys_tags"] == [{"key": "_sys_enterprise_project_id", "value": server["enterprise_project_id"]}]
    assert (server["os:scheduler_hints"], server["fault"]) == ({}, None)
    assert server["OS-SRV-USG:launched_at"] == "2025-06-15T15:06:40.000000"
    assert "links" not in server


def test_a_server_that_does_something_has_a_task_state(cloud: Simulator, bms: Ask) -> None:
    """As has an idle one if the cloud is so configured: null then."""
    server_id = cloud.add_server(task_state="powering-off")
    assert bms(f"baremetalservers/{server_id}").json()["server"]["OS-EXT-STS:task_state"] == "powering-off"
    cloud.bms.idle_task_state = True
    cloud.change(server_id, task_state=None)
    assert bms(f"baremetalservers/{server_id}").json()["server"]["OS-EXT-STS:task_state"] is None


def test_a_server_in_error_shows_its_fault(cloud: Simulator, bms: Ask) -> None:
    """As in Nova."""
    server_id = cloud.add_server(vm_state="error", host=False)
    assert bms(f"baremetalservers/{server_id}").json()["server"]["fault"]["code"] == 500


@pytest.mark.parametrize("status", [400, 404])
def test_a_server_that_is_not_there_has_a_code(cloud: Simulator, bms: Ask, status: int) -> None:
    """Unknown, deleted, another project's or no bare metal: all alike; which status goes with it is a choice."""
    cloud.bms.missing_status = status
    deleted = cloud.add_server()
    cloud.delete_server(deleted)
    foreign = cloud.add_server(project_id=cloud.other_project_id)
    virtual = cloud.add_server(flavor="s3.medium.4")
    for server_id in (NEVER_SEEN, "not-an-id", deleted, foreign, virtual):
        answer = bms(f"baremetalservers/{server_id}")
        assert (answer.status, answer.names) == (status, HEADERS)
        assert answer.json() == {"error": {"code": "BMS.0040", "message": "The server does not exist."}}


def test_the_tag_makes_a_server_one_of_bare_metal(cloud: Simulator, bms: Ask) -> None:
    """Whatever its flavor is called."""
    server_id = cloud.add_server(flavor="special", tags=["__type_baremetal"])
    assert bms(f"baremetalservers/{server_id.upper()}").json()["server"]["id"] == server_id


def test_only_bare_metal_of_the_project_is_listed(cloud: Simulator, clock: FakeClock, names: Lookup) -> None:
    """The youngest first."""
    assert names() == (0, [])
    for name in ("one", "two"):
        cloud.add_server(name)
        clock.advance(1)
    cloud.add_server("virtual", flavor="s3.medium.4")
    cloud.add_server("foreign", project_id=cloud.other_project_id)
    cloud.delete_server(cloud.add_server("gone"))
    assert names() == (2, ["two", "one"])


@pytest.mark.parametrize(
    ("query", "length", "first"),
    [
        ("", 25, "vm-1029"),
        ("?limit=2", 2, "vm-1029"),
        ("?limit=5000", 1000, "vm-1029"),
        ("?offset=1", 1000, "vm-1029"),
        ("?offset=2", 30, "vm-29"),
        ("?offset=3", 0, None),
        ("?offset=2&limit=25", 25, "vm-1004"),
        ("?offset=42&limit=25", 5, "vm-4"),
    ],
)
def test_offset_is_the_number_of_a_page(cloud: Simulator, names: Lookup, query: str, length: int, first: Any) -> None:
    """From 1 on; with it, a page has 1000 servers unless a limit is given, and without it 25."""
    for number in range(1030):
        cloud.add_server(f"vm-{number}")
    count, page = names(query)
    assert (count, len(page)) == (1030, length)
    assert next(iter(page), None) == first


@pytest.mark.parametrize("query", ["offset=0", "offset=-1", "offset=x", "limit=0", "limit=", "limit=1.5"])
def test_a_page_that_is_none_is_refused(bms: Ask, query: str) -> None:
    """Before anything is looked for."""
    answer = bms(f"baremetalservers/detail?{query}")
    assert (answer.status, answer.json()["error"]["code"]) == (400, "BMS.0018")


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
    """All filters must match, all tags must be there, and a name in part will do."""
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
    """And looks for it before it looks at the token."""
    answer = ask(method, path.format(project=cloud.project_id), token=None)
    assert (answer.status, answer.names) == (404, HEADERS)
    assert answer.json()["error_code"] == "APIG.0101"
    assert answer.json()["request_id"] == answer.header("X-Request-Id")
    assert (cloud.calls[-1].kind, cloud.calls[-1].api) == (CallKind.OTHER, Api.BMS)


@pytest.mark.parametrize("token", [None, "", "never-seen"], ids=repr)
def test_a_token_that_is_none_is_refused_by_the_gateway(bms: Ask, token: Any) -> None:
    """In its own form, without a challenge."""
    answer = bms("baremetalservers/detail", token=token)
    assert (answer.status, answer.json()["error_code"]) == (401, "APIG.0301")
    assert answer.header("WWW-Authenticate") is None


def test_the_gateway_distinguishes_a_revoked_token_from_an_expired_one(
    cloud: Simulator, bms: Ask, clock: FakeClock
) -> None:
    """The one is to be renewed, the other cannot be read any more."""
    tokens = [cloud.token(), cloud.token()]
    cloud.inject(Fault.token_expired(CallKind.LIST))
    assert bms("baremetalservers/detail", token=tokens[0]).json()["error_code"] == "APIG.0307"
    clock.advance(3600)
    assert bms("baremetalservers/detail", token=tokens[1]).json()["error_code"] == "APIG.0301"
    fresh = cloud.token()
    cloud.revoke_tokens()
    assert bms("baremetalservers/detail", token=fresh).json()["error_code"] == "APIG.0307"


def test_the_project_of_the_token_must_be_that_of_the_url(cloud: Simulator, ask: Ask, bms: Ask) -> None:
    """Also for administrators, and without a project nothing goes."""
    for token in (cloud.token(), cloud.token("admin")):
        answer = ask("GET", f"/v1/{cloud.other_project_id}/baremetalservers/detail", token=token)
        assert (answer.status, answer.json()["error"]["code"]) == (400, "Common.0018")
    assert bms("jobs/x", token=cloud.token(scoped=False)).json()["error"]["code"] == "Common.0018"


def test_the_catalogue_leads_to_the_api(cloud: Simulator, ask: Ask) -> None:
    """Beside compute, for the project of the token."""
    catalog = ask("GET", "/v3/auth/catalog").json()["catalog"]
    assert [service["type"] for service in catalog] == ["compute", "bms", "network", "image", "identity"]
    assert catalog[1]["name"] == "bms"
    url = catalog[1]["endpoints"][0]["url"]
    assert url == f"{cloud.bms_url}/{cloud.project_id}" == f"{cloud.url}/v1/{cloud.project_id}"


def test_a_cloud_without_the_api_has_no_such_path(ask: Ask) -> None:
    """Its settings are there, and of no effect."""
    with Simulator() as plain:
        assert plain.bms == BmsBehavior()
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
    """So one set of faults serves for both, unless a fault says which it means."""
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
    ],
)
def test_a_status_brings_this_apis_error_body_along(cloud: Simulator, bms: Ask, status: int, code: int) -> None:
    """With the words of the fault, or those of the status."""
    cloud.inject(Fault(on=CallKind.READ, status=status, message="about {id}"))
    cloud.inject(Fault(on=CallKind.READ, status=status))
    answer = bms("baremetalservers/x")
    assert (answer.status, answer.json()) == (status, {"error": {"code": code, "message": "about x"}})
    assert bms("baremetalservers/x").message.endswith(".")


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "APIG.0301"), (429, "APIG.0308"), (502, "APIG.0202"), (503, "APIG.0613"), (504, "APIG.0203")],
)
def test_some_statuses_are_the_gateways(cloud: Simulator, bms: Ask, status: int, code: int) -> None:
    """In its form; throttling says when to come again."""
    cloud.inject(Fault(on=CallKind.JOB, status=status, headers={"Retry-After": "2"}))
    answer = bms("jobs/x")
    assert (answer.status, answer.json()["error_code"], answer.header("Retry-After")) == (status, code, "2")


@pytest.mark.parametrize("flat", [False, True])
def test_any_code_of_this_api_can_be_had(cloud: Simulator, bms: Ask, ask: Ask, flat: Any) -> None:
    """For this API alone, with code and message inside an error object or at the top."""
    server_id = cloud.add_server()
    cloud.inject(Fault.bms(CallKind.READ, "BMS.0212", 500, flat=flat))
    assert ask("GET", f"/v2.1/servers/{server_id}").status == 200
    answer = bms(f"baremetalservers/{server_id}")
    error = {"code": "BMS.0212", "message": "The system is overloaded."}
    assert (answer.status, answer.json()) == (500, error if flat else {"error": error})
    assert answer.header("X-Request-Id").startswith("req-")


def test_an_unknown_code_has_a_message(cloud: Simulator, bms: Ask) -> None:
    """Or those that are given."""
    cloud.inject(Fault.bms(CallKind.READ, "BMS.9999"))
    cloud.inject(Fault.bms(CallKind.READ, "BMS.9999", message="odd", server_id="x"))
    answers = [bms("baremetalservers/x") for _ in "ab"]
    assert [(answer.status, answer.message) for answer in answers] == [(400, "Error BMS.9999."), (400, "odd")]


@pytest.mark.parametrize("path", ["/v1/{project}/baremetalservers/x", "/v2.1/servers/x"])
def test_any_code_of_the_gateway_can_be_had(cloud: Simulator, ask: Ask, path: str) -> None:
    """Before every API, under the request id of the call."""
    cloud.inject(Fault.gateway_code(CallKind.READ, "APIG.0308", 429, retry_after=3))
    answer = ask("GET", path.format(project=cloud.project_id))
    assert (answer.status, answer.header("Retry-After")) == (429, "3")
    assert answer.json() == {
        "error_code": "APIG.0308",
        "error_msg": "Too many requests",
        "request_id": answer.header("X-Request-Id"),
    }


def test_the_identity_service_throttles_in_the_same_form(cloud: Simulator, ask: Ask) -> None:
    """Without saying for how long, if so configured."""
    cloud.inject(Fault.gateway_code(CallKind.LOGIN, "IAM.0012", 429, server_id=None))
    answer = ask("POST", "/v3/auth/tokens", {}, token=None)
    assert (answer.status, answer.json()["error_code"]) == (429, "IAM.0012")
    assert answer.json()["error_msg"] == "Error IAM.0012"
    assert answer.header("Retry-After") is None

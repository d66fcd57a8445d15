"""Servers and errors as the BMS API shows them: most names are Nova's; the differences matter to parsers.

Source: the sample answers of OTC's BMS API reference, and the error tables of BMS and ECS; the texts are our own.
"""

import json
import uuid

from handler.simulator import gateway
from handler.simulator.compute import views
from handler.simulator.compute.replies import Microversion
from handler.simulator.compute.servers import ServerState
from handler.simulator.messages import Answer

_TAG = "__type_baremetal"
_ENTERPRISE_PROJECT = "0"
_SECURITY_GROUP = "6e1d2b9c-4f0a-4d8e-9b57-2c3a1f5e8d70"
_NETWORK = "c1a4f7d2-8b3e-4960-a5c8-7e2d90b6f134"
_VIEW = views.View(Microversion(2, 26), "", views.Base("", ""), "", admin=True)
_LEFT_OUT = ("links", "OS-EXT-STS:task_state", "OS-SRV-USG:terminated_at", "os-extended-volumes:volumes_attached")

_MESSAGES = {
    "BMS.0001": "The body of the request cannot be parsed.",
    "BMS.0018": "The request is not valid.",
    "BMS.0035": "The server is being powered on, and the action is refused.",
    "BMS.0036": "The server is being powered off, and the action is refused.",
    "BMS.0037": "The server is being restarted, and the action is refused.",
    "BMS.0039": "The server is powered off already.",
    "BMS.0040": "The server does not exist.",
    "BMS.0212": "The system is overloaded.",
    "BMS.0288": "The policy does not allow this action.",
    "BMS.1007": "An internal call failed.",
    "Common.0011": "The job id is not valid.",
    "Common.0018": "The project of the token is not the project of the URL.",
    "Ecs.0100": "The state of the server does not allow this action.",
    "Ecs.0605": "The server is locked.",
}


def is_bare_metal(server: ServerState) -> bool:
    """Whether the BMS API has this server, or it is a virtual one that only Nova has."""
    return (server.flavor_name or server.flavor).startswith("physical.") or _TAG in server.tags


def show(server: ServerState, *, idle_task_state: bool) -> dict[str, object]:
    """Return a server with all its members, which are the same for every caller.

    An idle one has a task_state of null if `idle_task_state`, else none at all.
    """
    shown = views.full(server, _VIEW, alone=True)
    for name in _LEFT_OUT:
        del shown[name]
    if server.task_state is not None or idle_task_state:
        shown["OS-EXT-STS:task_state"] = server.task_state
    return (
        {"fault": None}
        | shown
        | {
            "image": {"id": views.IMAGE},
            "addresses": {_NETWORK: [_address(server)]},
            "flavor": {
                "id": server.flavor,
                "name": server.flavor_name or server.flavor,
                "vcpus": "16",
                "ram": "262144",
                "disk": "100",
            },
            "security_groups": [{"id": _SECURITY_GROUP, "name": "default"}],
            "enterprise_project_id": _ENTERPRISE_PROJECT,
            "sys_tags": [{"key": "_sys_enterprise_project_id", "value": _ENTERPRISE_PROJECT}],
            "os:scheduler_hints": {},
        }
    )


def message_for(code: str) -> str:
    """Return what a code means."""
    return _MESSAGES.get(code, f"Error {code}.")


def error_body(code: str, message: str | None = None, *, flat: bool = False) -> str:
    """Return the body of an error; the message is the usual one of the code unless given."""
    error = {"code": code, "message": message or message_for(code)}
    return json.dumps(error if flat else {"error": error})


def reply(request_id: str, document: object, acted_on: tuple[str, ...] = ()) -> Answer:
    """Return a successful answer; `acted_on` are the ids of the servers that the request stopped."""
    return gateway.answer(request_id, 200, json.dumps(document).encode(), acted_on=acted_on)


def _address(server: ServerState) -> dict[str, str]:
    digits = uuid.uuid5(uuid.NAMESPACE_OID, server.id)
    last = digits.bytes[:3]
    return {
        "version": "4",
        "addr": f"192.168.{last[0]}.{last[1]}",
        "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:" + last.hex(":"),
        "OS-EXT-IPS:port_id": str(digits),
        "OS-EXT-IPS:type": "fixed",
    }

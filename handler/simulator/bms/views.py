"""Servers as the BMS API shows them: most names are Nova's; the differences matter to parsers.

Source: the sample answers of OTC's BMS API reference.
"""

import uuid

from handler.simulator.compute import views
from handler.simulator.compute.microversions import Microversion
from handler.simulator.compute.routes import Base
from handler.simulator.compute.servers import ServerState

_TAG = "__type_baremetal"
_ENTERPRISE_PROJECT = "0"
_SECURITY_GROUP = "6e1d2b9c-4f0a-4d8e-9b57-2c3a1f5e8d70"
_NETWORK = "c1a4f7d2-8b3e-4960-a5c8-7e2d90b6f134"
_VIEW = views.View(Microversion(2, 26), "", Base("", ""), "", admin=True)
_LEFT_OUT = ("links", "OS-EXT-STS:task_state", "OS-SRV-USG:terminated_at", "os-extended-volumes:volumes_attached")


def is_bare_metal(server: ServerState) -> bool:
    """Whether the BMS API has this server, or it is a virtual one that only Nova has."""
    return (server.flavor_name or server.flavor).startswith("physical.") or _TAG in server.tags


def show(server: ServerState, *, idle_task_state: bool) -> dict[str, object]:
    """Return a server with all its members, which are the same for every caller.

    Args:
        server: the server.
        idle_task_state: whether an idle server has a task_state of null, or none at all.
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

"""The servers and the users who act on them: the simulated cloud in simulated time, without a port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from handler.simulator import Api, BmsBehavior, CallKind, ComputePath, Fault, Refusal, Simulator
from handler.simulator.bms.views import is_bare_metal
from handler.simulator.cloud import Cloud
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.store import Actor
from tests.harness.prove.approvals import NO_RULES, Announce, ApprovalRules
from tests.harness.prove.command import Deployment
from tests.harness.prove.events import basic_timestamp, timestamp
from tests.harness.prove.network import CLOUD
from tests.harness.prove.recorder import Counters
from tests.harness.prove.scheduler import Clock

_PHYSICAL = "physical.o2.medium"
_VIRTUAL = "s3.large.4"
# What servers carry that an event can select them by.
TAG = "team=ci"
# What servers must carry where the deployment demands it; all of them do but those of one shape.
OPT_IN = "autostop-allowed=yes"

# What a server can be like at first. `keep` and `age` are in seconds from now.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "slow": {"power_off_delay": 3.0},
    "endless": {"power_off_delay": 1e9},
    "stubborn": {"power_off_fails": True, "power_off_delay": 0.5},
    "controller-refuses": {"controller": "refuses"},
    "controller-ignores": {"controller": "ignores", "power_off_delay": 3.0},
    "controller-silent": {"controller": "silent", "power_off_delay": 1.0},
    "error": {"vm_state": "error"},
    "never-launched": {"vm_state": "error", "launched": False},
    "stopped": {"vm_state": "stopped"},
    "stopped-but-on": {"vm_state": "stopped", "power_state": 1},
    "stopped-power-unknown": {"vm_state": "stopped", "power_state": 0},
    "locked": {"locked": True},
    "protected": {"tags": ["autostop=never"]},
    "protected-by-hand": {"tags": ["autostop= Never"]},
    "protected-old-form": {"tags": ["autostop.never"]},
    "protected-metadata": {"metadata": {"autostop": "never"}},
    "protected-metadata-old-form": {"metadata": {"autostop.never": ""}},
    "kept": {"keep": 400.0},
    "kept-basic": {"keep": 400.0, "format": "autostop-keep-until={basic}"},
    "kept-old-form": {"keep": 400.0, "format": "autostop-keep-until.{basic}"},
    "kept-forever": {"keep": 1e8},
    "kept-once": {"keep": -10.0},
    "kept-once-basic": {"keep": -10.0, "format": "autostop-keep-until={basic}"},
    "kept-unreadable": {"tags": ["autostop-keep-until=tomorrow"]},
    "kept-unreadable-old-form": {"tags": ["autostop-keep-until.2099-12-24"]},
    "tagged": {"tags": [TAG]},
    "tagged-and-protected": {"tags": [TAG, "autostop=never"]},
    "tagged-virtual": {"flavor": _VIRTUAL, "tags": [TAG]},
    "virtual": {"flavor": _VIRTUAL},
    "bare-by-tag": {"flavor": _VIRTUAL, "tags": ["__type_baremetal"]},
    "bare-by-metadata": {"flavor": _VIRTUAL, "metadata": {"metering.resourcetype": "__type_baremetal"}},
    "bare-by-flavor-name": {"flavor": "5c9fd0d6-0000-4000-8000-000000000000", "flavor_name": _PHYSICAL},
    "opted-out": {"opted_out": True},
    "opted-in-old-form": {"opted_out": True, "tags": [OPT_IN.replace("=", ".")]},
    "other-project": {"other_project": True},
    "tagged-other-project": {"other_project": True, "tags": [TAG]},
    "paused": {"vm_state": "paused"},
    "building": {"vm_state": "building", "task_state": "spawning"},
    "rebuilding": {"task_state": "rebuilding"},
    "rebooting": {"vm_state": "reboot"},
    "deleting": {"task_state": "deleting"},
    "stuck": {"task_state": "powering-off"},
    "stuck-starting": {"vm_state": "stopped", "task_state": "powering-on"},
}

ACTIONS = (
    "start",
    "start-slowly",
    "stop",
    "reboot",
    "reboot-slowly",
    "lock",
    "unlock",
    "protect",
    "unprotect",
    "tag",
    "keep",
    "break",
    "rebuild",
    "rebuilt",
    "delete",
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a cloud and the deployment of the function for it are.

    Attributes:
        otc: paths and answers are as on Open Telekom Cloud.
        bms: how its BMS API behaves; None if there is none, and Nova is used.
        page: the longest page of Nova's list of servers.
        next_links: a full page has a link to the next one.
        admin: the login is an administrator's, who sees the servers of other projects.
        denied: what the access rules of the login's application credential do not allow: `history`, `list`, or nothing.
        stop_limit: most servers that a process sends stops for within a window, and its seconds; or None.
    """

    otc: bool = False
    bms: BmsBehavior | None = None
    page: int = 1000
    next_links: bool = True
    admin: bool = False
    denied: str = ""
    only: bool = False
    stop_limit: tuple[int, float] | None = None
    approval: ApprovalRules = NO_RULES
    announce: Announce = Announce.OFF


class Environment:
    """A cloud with its servers, and users who act on them."""

    def __init__(self, clock: Clock, counters: Counters, setup: Setup) -> None:
        self._clock = clock
        self._counters = counters
        self._setup = setup
        self._simulator = Simulator(
            clock=clock.time,
            compute_path=ComputePath.PROJECT if setup.otc else ComputePath.PLAIN,
            max_microversion="2.60",
            stop_status=204 if setup.otc else 202,
            max_limit=setup.page,
            next_links=setup.next_links,
            bms=setup.bms or False,
        )
        self.bms = setup.bms
        self.denied = setup.denied
        # The seam behind its port: a request goes in here, and its answer comes out.
        self.cloud: Cloud = self._simulator._cloud
        self._simulator._catalog.base_url = CLOUD
        self.store = self.cloud.store
        self.ids: list[str] = []
        self.deployment = Deployment(
            self._simulator.project_id, OPT_IN if setup.only else None, setup.stop_limit, setup.approval, setup.announce
        )
        self._faults: dict[int, tuple[str, Fault]] = {}
        self._take = self.cloud.faults.take
        self.cloud.faults.take = self._counted_take  # type: ignore[method-assign]

    def inject(self, name: str, fault: Fault) -> None:
        """Put a fault into the cloud, which is counted under a name when it happens.

        A call that access rules deny is refused before the cloud could answer anything else.
        """
        if fault.on is {"history": CallKind.ACTIONS, "list": CallKind.LIST}.get(self.denied):
            return
        # With the fault itself, so that no other one gets its id.
        self._faults[id(fault)] = name, fault
        self.cloud.faults.add(fault)

    def shows(self, state: ServerState) -> bool:
        """Whether the API that is used shows a server to the login."""
        own = state.project_id == self.deployment.project_id
        return own and is_bare_metal(state) if self.bms else own or self._setup.admin

    def name_of(self, server_id: str) -> str:
        return self.store.get(server_id).name if self.store.known(server_id) else "an unknown server"

    def login(self, user: str) -> dict[str, str]:
        return dict(self._simulator.environ(user))

    def revoke_tokens(self) -> None:
        self._simulator.revoke_tokens()

    def environ(self) -> dict[str, str]:
        """Return the environment variables of the function: a login that works, the API to use, what is demanded."""
        login = self._restricted_login() if self.denied else self._simulator.environ(self._user)
        variables = {
            **login,
            "OS_AUTH_URL": f"{CLOUD}/v3",
            "AUTOSTOP_API": "nova" if self.bms is None else "bms",
            "AUTOSTOP_STOP_LIMIT": "0",
            **self.deployment.approval.environ(),
            "AUTOSTOP_ANNOUNCE": self.deployment.announce.value,
        }
        if self.deployment.only is not None:
            variables["AUTOSTOP_ONLY"] = self.deployment.only
        if self.deployment.stop_limit is not None:
            most, window = self.deployment.stop_limit
            variables["AUTOSTOP_STOP_LIMIT"] = f"{most}/{window:g}s"
        return variables

    @property
    def _user(self) -> str:
        return "admin" if self._setup.admin else "operator"

    def _restricted_login(self) -> dict[str, str]:
        servers = f"/v2.1/{self.deployment.project_id}/servers" if self._setup.otc else "/v2.1/servers"
        # Ids begin with 0, but for the one that is unknown.
        rules = [("GET", f"{servers}/0*"), ("GET", f"{servers}/9*"), ("POST", f"{servers}/*/action")]
        rules.append(("GET", f"{servers}/detail" if self.denied == "history" else f"{servers}/*/os-instance-actions"))
        id_, secret = self._simulator.add_application_credential(user=self._user, access_rules=rules)
        environ = self._simulator.environ()
        return {
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_APPLICATION_CREDENTIAL_ID": id_,
            "OS_APPLICATION_CREDENTIAL_SECRET": secret,
            "OS_REGION_NAME": environ["OS_REGION_NAME"],
        }

    def _counted_take(self, kind: CallKind, api: Api, server_ids: tuple[str, ...]) -> Fault | None:
        fault = self._take(kind, api, server_ids)
        if fault is not None:
            self._counters.add("faults", self._faults[id(fault)][0])
        return fault

    def add(self, shape: str) -> str:
        """Add a server of one of the `SHAPES` that has not changed for an hour."""
        wanted = dict(SHAPES[shape])
        now = self._clock.time()
        if "keep" in wanted:
            until = now + wanted.pop("keep")
            text = wanted.pop("format", "autostop-keep-until={time}")
            wanted["tags"] = [text.format(time=timestamp(until), basic=basic_timestamp(until))]
        if not wanted.pop("opted_out", False):
            wanted["tags"] = [*wanted.get("tags", ()), OPT_IN]
        if wanted.pop("other_project", False):
            wanted["project_id"] = self._simulator.other_project_id
        number = len(self.ids) + 1
        server_id = self._simulator.add_server(
            f"{shape}-{number}",
            id=f"{number:08d}-0000-4000-8000-000000000000",
            updated=now - 3600.0,
            **{"flavor": _PHYSICAL, **wanted},
        )
        self.ids.append(server_id)
        return server_id

    def act(self, number: int, action: str) -> bool:
        """Let a user do something to a server; False if the cloud refuses or there is nothing to do."""
        server_id = self.ids[number % len(self.ids)]
        state = self.store.get(server_id)
        if state.deleted:
            return False
        count = len(self.store.actions(server_id))
        user = Actor("another-user", state.project_id, f"req-user-{server_id[:8]}-{count}", admin=True)
        try:
            return self._act(server_id, action, user)
        except Refusal:
            return False

    def _act(self, server_id: str, action: str, user: Actor) -> bool:
        store, state = self.store, self.store.get(server_id)
        running = state.vm_state == "active"
        possible = {
            "break": running,
            "rebuild": running and state.task_state is None,
            "rebuilt": state.task_state == "rebuilding",
        }
        effects: Mapping[str, Callable[[], None]] = {
            "start": lambda: store.act(server_id, "start", user, 0.0),
            "start-slowly": lambda: store.act(server_id, "start", user, 40.0),
            "stop": lambda: store.act(server_id, "stop", user),
            "reboot": lambda: store.act(server_id, "reboot", user, 0.0),
            "reboot-slowly": lambda: store.act(server_id, "reboot", user, 8.0),
            "lock": lambda: store.change(server_id, locked=True),
            "unlock": lambda: store.change(server_id, locked=False),
            # Nova keeps tags in a table of their own: a new one does not show in `updated`.
            "protect": lambda: store.change(
                server_id, tags=[*state.tags, "autostop=never"], metadata=state.metadata, updated=state.updated
            ),
            "tag": lambda: store.change(server_id, tags=[*state.tags, TAG], updated=state.updated),
            "unprotect": lambda: store.change(server_id, tags=[OPT_IN], metadata={}, updated=state.updated),
            "keep": lambda: store.change(
                server_id,
                tags=[*state.tags, f"autostop-keep-until={timestamp(self._clock.time() + 400)}"],
                updated=state.updated,
            ),
            "break": lambda: store.change(server_id, vm_state="error"),
            "rebuild": lambda: store.change(server_id, task_state="rebuilding", due=None),
            "rebuilt": lambda: store.change(server_id, task_state=None),
            "delete": lambda: store.delete(server_id, user),
        }
        if possible.get(action, True):
            effects[action]()
            return True
        return False

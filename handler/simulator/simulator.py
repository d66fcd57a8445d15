"""A Keystone v3 and a Nova v2.1 on a port of this machine, and Open Telekom Cloud's BMS v1, for demos and for tests.

with Simulator(power_off_delay=0.5) as cloud:
    server_id = cloud.add_server("db-1", tags=["env=test"])
    run_the_client(cloud.environ())
    assert cloud.stops_taken(server_id) == 1

`Simulator.otc()` is the same as Open Telekom Cloud has it.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from handler.simulator.bms.api import PREFIX as BMS_PREFIX
from handler.simulator.bms.behavior import BmsBehavior
from handler.simulator.calls import Call, CallKind
from handler.simulator.cloud import Cloud
from handler.simulator.compute.server_view import SimServer
from handler.simulator.compute.servers import Action, new_server
from handler.simulator.compute.world import Actor, World
from handler.simulator.faults import Fault
from handler.simulator.identity.access_keys import AccessKey
from handler.simulator.identity.accounts import Accounts
from handler.simulator.identity.catalog import Catalog, ComputePath
from handler.simulator.identity.model import Identity, User
from handler.simulator.server import Server
from handler.simulator.smn import Published, Smn


class Simulator:
    """The simulated cloud. As a context manager it runs within the block.

    Args:
        host: the address to listen on.
        port: 0 for a free one.
        power_off_delay: seconds from a stop taken to `stopped`; also from an `os-start` to `active`.
        latency: seconds of real time that every call takes, the simulation's own work among them.
        token_ttl: seconds for which a token is good.
        clock: seconds since the epoch. What it says is the cloud's time; a test can hold it.
        max_limit: the longest page of a list.
        region: the id of the region that is simulated.
        more_regions: others that the catalogue names; nothing answers there.
        compute_path: what follows host and port in the catalogue's compute URL.
        max_microversion: the highest that Nova takes; Open Telekom Cloud has "2.60".
        stop_status: what a stop taken is answered with: 202, or 204 as Open Telekom Cloud documents.
        project_name: the project that the seeded users work in.
        domain_name: the domain of users and projects.
        default_limit: the length of a page of Nova's list of servers if the caller names none; None for the longest.
        next_links: a full page of Nova's list of servers has a link to the next one.
        bms: whether there is a BMS API, in the catalogue too; or its manners. See the attribute `bms`.
        smn: whether there are topics to publish to, in the catalogue too.
        otc_iam: logins are as on Open Telekom Cloud: a project's name needs no domain beside the user's, projects can
            be asked for by name, and a token that is not good is refused by the gateway in its own form.
        long_tokens: tokens are of some kilobytes.
        password: of the user `operator`; None for a random one.

    Attributes:
        bms: the manners of the BMS API, which can be changed at any time; of no effect without that API.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        power_off_delay: float = 0.0,
        latency: float = 0.0,
        token_ttl: float = 3600.0,
        clock: Callable[[], float] = time.time,
        max_limit: int = 1000,
        region: str = "RegionOne",
        compute_path: str = ComputePath.PLAIN,
        max_microversion: str = "2.104",
        stop_status: int = 202,
        project_name: str = "bare-metal",
        domain_name: str = "Default",
        default_limit: int | None = None,
        next_links: bool = True,
        more_regions: Iterable[str] = (),
        bms: bool | BmsBehavior = False,
        smn: bool = False,
        otc_iam: bool = False,
        long_tokens: bool = False,
        password: str | None = None,
    ) -> None:
        stopping = threading.Event()
        self.bms = bms if isinstance(bms, BmsBehavior) else BmsBehavior()
        self._identity = Identity(clock, token_ttl, long_tokens=long_tokens)
        self._world = World(clock, power_off_delay)
        bms_path = BMS_PREFIX + "/{project_id}" if bms else ""
        self._catalog = Catalog(region, compute_path, bms_path, smn=smn, more_regions=more_regions)
        self._accounts = Accounts(self._identity, project_name, domain_name, password)
        self._otc_iam = otc_iam
        self._smn = Smn(self._identity, region)
        self._cloud = Cloud(
            self._world,
            self._identity,
            self._catalog,
            max_microversion=max_microversion,
            stop_status=stop_status,
            max_limit=max_limit,
            latency=latency,
            wait=stopping.wait,
            default_limit=default_limit,
            next_links=next_links,
            bms=self.bms if bms else None,
            smn=self._smn if smn else None,
            otc=otc_iam,
            keys=self._accounts.keys,
        )
        self._server = Server(self._cloud, host, port, stopping)

    @classmethod
    def otc(cls, **options: Any) -> Self:
        """Return a cloud as Open Telekom Cloud is, but for what `options`, those of the constructor, say otherwise."""
        manners: dict[str, Any] = {
            "region": "eu-de",
            "project_name": "eu-de",
            "domain_name": "OTC00000000001000000123",
            "compute_path": ComputePath.PROJECT,
            "max_microversion": "2.60",
            "stop_status": 204,
            "default_limit": 25,
            "bms": True,
            "smn": True,
            "otc_iam": True,
            "long_tokens": True,
            "token_ttl": 86400.0,
        }
        return cls(**(manners | options))

    def start(self) -> None:
        """Listen. After a `stop` the same port is taken again, and everything is as it was.

        Raises:
            OSError: the port is taken.
            RuntimeError: it runs already.
        """
        self._server.start()
        self._catalog.base_url = self.url

    def stop(self) -> None:
        """Close the port and every connection, also one that is being answered; no error if not started."""
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Scheme, host and port, without a slash at the end; Nova's API is below `/v2.1`."""
        return self._server.url

    @property
    def auth_url(self) -> str:
        """Where Keystone is."""
        return f"{self.url}/v3"

    @property
    def bms_url(self) -> str:
        """Where the BMS API is, without a project and without a slash at the end."""
        return self.url + BMS_PREFIX

    @property
    def project_id(self) -> str:
        """The project that the seeded users work in: 32 hexadecimal digits."""
        return self._accounts.project.id

    @property
    def other_project_id(self) -> str:
        """A project that only an administrator sees into."""
        return self._accounts.other.id

    def user(self, name: str = "operator") -> User:
        """Return a seeded user: `operator` (member), `watcher` (reader only) or `admin`.

        Raises:
            KeyError: there is no such user.
        """
        return self._accounts.user(name)

    def environ(self, user: str = "operator") -> dict[str, str]:
        """Return the usual OS_* variables of a login that works, scoped to the project.

        With `otc_iam` the project's domain is not among them, for there one does without it.
        """
        variables = self._place() | self._accounts.environ(user)
        if self._otc_iam:
            del variables["OS_PROJECT_DOMAIN_NAME"]
        return variables

    def key_environ(self, key: AccessKey) -> dict[str, str]:
        """Return the OS_* variables of somebody who signs with an access key, in place of those of a login."""
        variables = self._place() | {
            "OS_PROJECT_NAME": self._accounts.project.name,
            "OS_ACCESS_KEY": key.access,
            "OS_SECRET_KEY": key.secret,
        }
        return variables | ({"OS_SECURITY_TOKEN": key.security_token} if key.security_token else {})

    def _place(self) -> dict[str, str]:
        return {"OS_AUTH_URL": self.auth_url, "OS_REGION_NAME": self._catalog.region}

    def token(self, user: str = "operator", *, scoped: bool = True) -> str:
        """Return a token without a call to Keystone, as a platform hands one to a function."""
        return self._accounts.token(user, scoped)

    def revoke_tokens(self) -> None:
        """Let every token given out so far answer 401 from now on."""
        self._identity.revoke_all()

    def add_access_key(
        self, *, user: str = "operator", temporary: bool = False, lifetime: float = 86400.0
    ) -> AccessKey:
        """Add a key with which requests can be signed on behalf of a user, instead of bearing a token.

        Args:
            temporary: with a security token that goes with each request.
            lifetime: seconds for which a temporary one is good.
        """
        return self._accounts.add_access_key(user, lifetime if temporary else None)

    def add_application_credential(
        self,
        name: str = "bms-autostop",
        *,
        user: str = "operator",
        roles: Iterable[str] | None = None,
        access_rules: Iterable[tuple[str, str]] | None = None,
    ) -> tuple[str, str]:
        """Add a login for a program on behalf of a user, with all of the user's roles unless some are given.

        Args:
            access_rules: methods and paths, the only calls to Nova that it may be used for; any other is answered 401.
                In a path `*` or a name in braces stands for one part, `**` for any rest.

        Returns:
            Its id (32 hexadecimal digits) and its secret.
        """
        credential = self._accounts.add_application_credential(name, user, roles, access_rules)
        return credential.id, credential.secret

    def add_topic(self, name: str = "results") -> str:
        """Add a topic of SMN and return its URN; messages to it are kept in `published`."""
        return self._smn.add_topic(name, self.project_id)

    @property
    def published(self) -> list[Published]:
        """Every message that was published to a topic so far, in the order in which they came."""
        return self._smn.published

    def add_server(
        self,
        name: str = "server-1",
        *,
        id: str | None = None,
        vm_state: str = "active",
        task_state: str | None = None,
        locked: bool = False,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        flavor: str = "physical.o2.medium",
        launched: bool = True,
        host: bool | str = True,
        power_off_delay: float | None = None,
        power_off_fails: bool = False,
        project_id: str | None = None,
        updated: float | None = None,
        **others: Any,
    ) -> str:
        """Add a server and return its id, a random UUID unless given.

        Args:
            launched: whether it ever ran; a stop of one that never did is refused.
            host: False for a build that no host ever took.
            power_off_delay: seconds, in place of the simulator's; `math.inf` for a host that just died.
            power_off_fails: a stop is taken, and after the delay the server is as before.
            project_id: `other_project_id` for one that the seeded users do not see.
            updated: seconds since the epoch, if it last changed in the past.
            others: more fields of `ServerState`: `locked_reason`, `description`, `availability_zone`, ...

        Raises:
            ValueError: there is a server of that id already.
        """
        server = new_server(
            now=self._world.clock(),
            project_id=project_id or self.project_id,
            user_id=self.user().id,
            name=name,
            id=id,
            vm_state=vm_state,
            launched=launched,
            host=host,
            tags=tags,
            metadata=metadata,
            updated=updated,
            task_state=task_state,
            locked=locked,
            flavor=flavor,
            power_off_delay=power_off_delay,
            power_off_fails=power_off_fails,
            **others,
        )
        self._world.add(server, _request_id())
        return server.id

    def server(self, id: str) -> SimServer:
        """Return a live view of a server.

        Raises:
            KeyError: there never was one.
        """
        return SimServer(self._world, self._world.get(id).id)

    def change(self, id: str, **changes: Any) -> None:
        """Set fields of `ServerState` as a person or the cloud does behind our back; `updated` becomes now.

        A new vm_state or task_state ends whatever the cloud was about to do with the server; a new vm_state
        without a task_state means that nothing is going on.

        Raises:
            KeyError: there never was such a server.
            TypeError: there is no such field.
        """
        self._world.change(id, **changes)

    def start_server(self, id: str, user_id: str = "somebody-else", delay: float = 0.0) -> None:
        """Let somebody else start a stopped server, which takes `delay` seconds.

        Raises:
            Refusal: Nova's rules forbid it.
        """
        self._world.start(id, self._somebody(user_id), delay)

    def reboot_server(self, id: str, user_id: str = "somebody-else", delay: float = 0.0) -> None:
        """Let somebody else restart a server, which takes `delay` seconds.

        Raises:
            Refusal: Nova's rules forbid it.
        """
        self._world.reboot(id, self._somebody(user_id), delay)

    def record_action(self, id: str, action: str, *, user_id: str = "ironic", at: float | None = None) -> None:
        """Write an entry into a server's history without doing anything, as Ironic's notifications do.

        Args:
            action: in the words of Nova's instance actions.
            at: when it began, in seconds since the epoch; None for now.

        Raises:
            KeyError: there never was such a server.
        """
        self._world.record(id, action, self._somebody(user_id), self._world.clock() if at is None else at)

    def delete_server(self, id: str, user_id: str = "somebody-else") -> None:
        """Let somebody else delete a server at once.

        Raises:
            Refusal: there is no such server.
        """
        self._world.delete(id, self._somebody(user_id))

    def actions(self, id: str) -> list[Action]:
        """Return what was done to a server, the latest first, as `os-instance-actions` would."""
        return self._world.actions(id)

    def _somebody(self, user_id: str) -> Actor:
        return Actor(user_id, self.project_id, _request_id(), admin=True)

    @property
    def faults(self) -> list[Fault]:
        """The faults that can still strike, in the order in which they were put in."""
        return self._cloud.faults.present()

    def inject(self, fault: Fault) -> Fault:
        """Put a fault behind those that are there, and return it."""
        self._cloud.faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Take all faults away."""
        self._cloud.faults.clear()

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in the order in which they came."""
        return self._cloud.calls.all()

    def count(self, kind: CallKind | str, server_id: str | None = None) -> int:
        """Return how many calls of a kind came, about one server if given."""
        return len(self._cloud.calls.find(kind, server_id))

    def stops_sent(self, server_id: str) -> int:
        """Return how many stops of a server reached the cloud, of either API and whatever was answered.

        A server that is named twice in one batch counts twice.
        """
        return sum(call.server_ids.count(server_id) for call in self._cloud.calls.find(CallKind.STOP))

    def stops_taken(self, server_id: str) -> int:
        """Return how many stops of a server the cloud acted upon, of either API and whatever was answered."""
        return sum(server_id in call.acted_on for call in self._cloud.calls.find(CallKind.STOP))


def _request_id() -> str:
    return f"req-{uuid.uuid4()}"

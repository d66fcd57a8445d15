"""Keystone v3, Nova v2.1 and Open Telekom Cloud's BMS v1 on a local port, for demos and tests.

with Simulator(power_off_delay=0.5) as cloud:
    server_id = cloud.add_server("db-1", tags=["env=test"])
    run_the_client(cloud.environ())
    assert cloud.stops_taken(server_id) == 1

`Simulator.otc()` behaves as Open Telekom Cloud.
"""

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from handler.simulator import gateway
from handler.simulator.bms.api import PREFIX as BMS_PREFIX
from handler.simulator.bms.api import Bms
from handler.simulator.bms.behavior import BmsBehavior
from handler.simulator.calls import Api, Call, CallKind
from handler.simulator.cloud import Cloud, Service
from handler.simulator.compute.api import Nova
from handler.simulator.compute.lists import PageLimits
from handler.simulator.compute.replies import unauthenticated
from handler.simulator.compute.servers import Action, ServerFault, ServerState, power_state_of
from handler.simulator.compute.store import Actor, ServerStore
from handler.simulator.faults import Fault
from handler.simulator.identity.api import Keystone
from handler.simulator.identity.catalog import Catalog, ComputePath
from handler.simulator.identity.model import ApplicationCredential, Identity, User
from handler.simulator.identity.signing import AccessKey, AccessKeys
from handler.simulator.server import Server
from handler.simulator.smn import Published, Smn


class Simulator:
    """The simulated cloud. As a context manager it runs within the block.

    Args:
        host: the address to listen on.
        port: 0 for a free one.
        power_off_delay: seconds from an accepted stop to `stopped`; also from an `os-start` to `active`.
        latency: seconds of real time that every call takes, including the simulation's own work.
        token_ttl: seconds for which a token is valid.
        clock: the time of the cloud in seconds since the epoch; a test can pass a fake one.
        max_limit: the longest page of a list.
        region: the id of the region that is simulated.
        more_regions: others that the catalogue names, without a server.
        compute_path: the path of the catalogue's compute URL.
        max_microversion: the highest that Nova accepts; Open Telekom Cloud has "2.60".
        stop_status: the status for an accepted stop: 202, or 204 as Open Telekom Cloud documents.
        project_name: of the seeded users' project.
        domain_name: the domain of users and projects.
        default_limit: the length of a page of Nova's list of servers without a `limit`; None for the longest.
        next_links: whether a full page of Nova's list of servers has a link to the next one.
        bms: whether there is a BMS API, also in the catalogue; or its behaviour. See the attribute `bms`.
        smn: whether there are topics to publish to, also in the catalogue.
        otc_iam: whether logins are as on Open Telekom Cloud: a project's name needs no domain beside the user's,
            projects can be listed by name, and an invalid token is refused by the gateway in its own form.
        long_tokens: whether tokens have some kilobytes.
        password: of the user `operator`; None for a random one.

    Attributes:
        bms: the behaviour of the BMS API, which can be changed at any time; without effect if there is no such API.
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
        self._store = ServerStore(clock, power_off_delay)
        self._identity = Identity(
            clock,
            token_ttl,
            project_name=project_name,
            domain_name=domain_name,
            long_tokens=long_tokens,
            password=password,
        )
        self._catalog = Catalog(
            region=region,
            compute=compute_path,
            bms=BMS_PREFIX + "/{project_id}" if bms else "",
            smn=smn,
            more_regions=tuple(more_regions),
        )
        self._otc_iam = otc_iam
        self._keys = AccessKeys(clock)
        self._smn = Smn(self._identity, region)
        nova = Nova(
            self._store,
            self._identity,
            max_microversion=max_microversion,
            stop_status=stop_status,
            limits=PageLimits(max_limit, default_limit, next_links),
            refuse_token=partial(gateway.refuse_token, self._identity) if otc_iam else unauthenticated,
        )
        # In a cloud without SMN its paths are those of the old Nova; Keystone has every other path.
        services: dict[Api, Service] = {Api.SMN: self._smn} if smn else {}
        services[Api.NOVA] = nova
        if bms:
            services[Api.BMS] = Bms(self._store, self._identity, self.bms)
        services[Api.KEYSTONE] = Keystone(self._identity, self._catalog, otc=otc_iam)
        self._cloud = Cloud(self._store, self._identity, self._keys, services, latency=latency, wait=stopping.wait)
        self._host, self._port, self._stopping = host, port, stopping
        self._server: Server | None = None

    @classmethod
    def otc(cls, **options: Any) -> Self:
        """Return a cloud that behaves as Open Telekom Cloud; `options` are those of the constructor."""
        behavior: dict[str, Any] = {
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
        return cls(**(behavior | options))

    def start(self) -> None:
        """Listen and serve. After a `stop` the same port and the same state are used again.

        Raises:
            OSError: the port is taken.
            RuntimeError: it runs already.
        """
        if self._server:
            raise RuntimeError("the simulator runs already")
        self._server = Server(self._cloud, self._host, self._port, self._stopping)
        self._port = self._server.server_address[1]
        self._catalog.base_url = self.url

    def stop(self) -> None:
        """Close the port and every connection, also one with a request; no error if not started."""
        if self._server:
            self._server.stop()
            self._server = None

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
        return f"http://{self._host}:{self._port}"

    @property
    def auth_url(self) -> str:
        """The URL of Keystone."""
        return f"{self.url}/v3"

    @property
    def bms_url(self) -> str:
        """The URL of the BMS API, without a project and without a slash at the end."""
        return self.url + BMS_PREFIX

    @property
    def project_id(self) -> str:
        """The id of the seeded users' project: 32 hexadecimal digits."""
        return self._identity.project.id

    @property
    def other_project_id(self) -> str:
        """The id of a project that only an administrator can read."""
        return self._identity.other.id

    def user(self, name: str = "operator") -> User:
        """Return a seeded user: `operator` (member), `watcher` (reader only) or `admin`.

        Raises:
            KeyError: there is no such user.
        """
        return self._identity.users[name]

    def environ(self, user: str = "operator") -> dict[str, str]:
        """Return the OS_* variables of a user's login, scoped to the project.

        With `otc_iam` the project's domain is not among them, since it is not needed.
        """
        login = self.user(user)
        variables = self._place() | {
            "OS_USERNAME": login.name,
            "OS_PASSWORD": login.password,
            "OS_USER_DOMAIN_NAME": login.domain.name,
        }
        return variables | ({} if self._otc_iam else {"OS_PROJECT_DOMAIN_NAME": login.domain.name})

    def key_environ(self, key: AccessKey) -> dict[str, str]:
        """Return the OS_* variables for an access key, in place of those of a login."""
        variables = self._place() | {"OS_ACCESS_KEY": key.access, "OS_SECRET_KEY": key.secret}
        return variables | ({"OS_SECURITY_TOKEN": key.security_token} if key.security_token else {})

    def _place(self) -> dict[str, str]:
        return {
            "OS_AUTH_URL": self.auth_url,
            "OS_REGION_NAME": self._catalog.region,
            "OS_PROJECT_NAME": self._identity.project.name,
        }

    def token(self, user: str = "operator", *, scoped: bool = True) -> str:
        """Return a token without a call to Keystone, as a platform passes one to a function."""
        project = self._identity.project if scoped else None
        return self._identity.issue(self.user(user), project, ("password",)).id

    def revoke_tokens(self) -> None:
        """Revoke every token issued so far."""
        self._identity.revoke_all()

    def add_access_key(
        self, *, user: str = "operator", temporary: bool = False, lifetime: float = 86400.0
    ) -> AccessKey:
        """Add an access key of a user, which signs requests in place of a token.

        Args:
            user: the user.
            temporary: whether it has a security token, which is sent with each request.
            lifetime: seconds for which a temporary key is valid.
        """
        return self._keys.add(self.user(user), lifetime if temporary else None)

    def add_application_credential(
        self,
        name: str = "bms-autostop",
        *,
        user: str = "operator",
        roles: Iterable[str] | None = None,
        access_rules: Iterable[tuple[str, str]] | None = None,
    ) -> tuple[str, str]:
        """Add an application credential of a user.

        Args:
            user: the user.
            name: of the credential.
            roles: of the user's; None for all.
            access_rules: methods and paths, the only calls to Nova that it may be used for; any other is answered 401.
                In a path `*` or a name in braces stands for one part, `**` for any rest.

        Returns:
            Its id (32 hexadecimal digits) and its secret.
        """
        owner, project = self.user(user), self._identity.project
        credential = ApplicationCredential(
            id=uuid.uuid4().hex,
            name=name,
            secret=secrets.token_urlsafe(32),
            user=owner,
            project=project,
            roles=owner.roles[project.id] if roles is None else tuple(roles),
            access_rules=None if access_rules is None else tuple(access_rules),
        )
        self._identity.application_credentials.append(credential)
        return credential.id, credential.secret

    def add_topic(self, name: str = "results") -> str:
        """Add a topic of SMN and return its URN; messages to it are in `published`."""
        return self._smn.add_topic(name, self.project_id)

    @property
    def published(self) -> list[Published]:
        """Every message that was published to a topic so far, the oldest first."""
        return self._smn.published

    def add_server(
        self,
        name: str = "server-1",
        *,
        id: str | None = None,
        vm_state: str = "active",
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        launched: bool = True,
        host: bool | str = True,
        project_id: str | None = None,
        updated: float | None = None,
        **others: Any,
    ) -> str:
        """Add a server and return its id.

        Args:
            name: of the server.
            id: of the server; None for a random UUID.
            vm_state: `OS-EXT-STS:vm_state`.
            tags: of the server.
            metadata: of the server.
            launched: whether it ever ran; a stop of one that never did is refused.
            host: a name, or True for a host of the usual name; False for a build that never got one.
            project_id: `other_project_id` for one that the seeded users do not see.
            updated: seconds since the epoch, if it last changed in the past; it was created then, too.
            others: more fields of `ServerState`: `task_state`, `locked`, `flavor`, `power_off_delay`, ...

        Raises:
            ValueError: there is a server of that id already.
        """
        now = self._store.clock()
        changed = now if updated is None else updated
        created = min(now, changed)
        host_name = (host if isinstance(host, str) else "host-1") if host else None
        never_placed = vm_state == "error" and host_name is None
        server = ServerState(
            id=(id or str(uuid.uuid4())).lower(),
            name=name,
            project_id=project_id or self.project_id,
            user_id=self.user().id,
            created=created,
            updated=changed,
            launched_at=created if launched and host_name and vm_state != "building" else None,
            host=host_name,
            power_state=others.pop("power_state", power_state_of(vm_state, host_name is not None)),
            vm_state=vm_state,
            tags=tuple(tags),
            metadata=dict(metadata or {}),
            fault=ServerFault("No valid host was found. ", changed) if never_placed else None,
            **others,
        )
        self._store.add(server, _request_id())
        return server.id

    def server(self, id: str) -> ServerState:
        """Return the present state of a server, also of a deleted one.

        Raises:
            KeyError: there never was one.
        """
        return self._store.get(id)

    def change(self, id: str, **changes: Any) -> None:
        """Set fields of `ServerState` as another client or the cloud would; `updated` becomes now.

        A new vm_state or task_state ends the running operation; a new vm_state without a task_state means that there
        is no operation.

        Raises:
            KeyError: there never was such a server.
            TypeError: there is no such field.
        """
        self._store.change(id, **changes)

    def start_server(self, id: str, user_id: str = "another-user", delay: float = 0.0) -> None:
        """Start a stopped server as another user, which takes `delay` seconds.

        Raises:
            Refusal: Nova does not permit it.
        """
        self._store.act(id, "start", self._actor(user_id), delay)

    def reboot_server(self, id: str, user_id: str = "another-user", delay: float = 0.0) -> None:
        """Restart a server as another user, which takes `delay` seconds.

        Raises:
            Refusal: Nova does not permit it.
        """
        self._store.act(id, "reboot", self._actor(user_id), delay)

    def record_action(self, id: str, action: str, *, user_id: str = "ironic", at: float | None = None) -> None:
        """Add an entry to a server's history without an action, as Ironic's notifications do.

        Args:
            id: of the server.
            action: one of Nova's instance actions.
            user_id: of the actor.
            at: when it began, in seconds since the epoch; None for now.

        Raises:
            KeyError: there never was such a server.
        """
        self._store.record(id, action, self._actor(user_id), self._store.clock() if at is None else at)

    def delete_server(self, id: str, user_id: str = "another-user") -> None:
        """Delete a server as another user, at once.

        Raises:
            Refusal: there is no such server.
        """
        self._store.delete(id, self._actor(user_id))

    def actions(self, id: str) -> list[Action]:
        """Return the history of a server, the latest action first, as `os-instance-actions` has it."""
        return self._store.actions(id)

    def _actor(self, user_id: str) -> Actor:
        return Actor(user_id, self.project_id, _request_id(), admin=True)

    @property
    def faults(self) -> list[Fault]:
        """The faults that can still apply, in order."""
        return self._cloud.faults.present()

    def inject(self, fault: Fault) -> Fault:
        """Append a fault, and return it."""
        self._cloud.faults.add(fault)
        return fault

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._cloud.faults.clear()

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in order."""
        return self._cloud.calls.all()

    def count(self, kind: CallKind | str, server_id: str | None = None) -> int:
        """Return the number of calls of a kind, about one server if given."""
        return len(self._cloud.calls.find(kind, server_id))

    def stops_sent(self, server_id: str) -> int:
        """Return how many stops of a server the cloud received, by either API and with any answer.

        A server that is listed twice in one batch counts twice.
        """
        return sum(call.server_ids.count(server_id) for call in self._cloud.calls.find(CallKind.STOP))

    def stops_taken(self, server_id: str) -> int:
        """Return how many stops of a server the cloud carried out, by either API and with any answer."""
        return sum(server_id in call.acted_on for call in self._cloud.calls.find(CallKind.STOP))


def _request_id() -> str:
    return f"req-{uuid.uuid4()}"

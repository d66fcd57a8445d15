"""From settings to connections: each kind of login, an entry of clouds.yaml, and the right half of the right API."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from keystoneauth1.identity import v3

from handler.cloud import auth as auth_package
from handler.cloud.auth.aksk import AccessKeyAuth
from handler.cloud.auth.keystone import KeystoneLogin
from handler.cloud.auth.login import StaticToken
from handler.cloud.bms import BmsCloud, BmsReader
from handler.cloud.dry_run import DryRunCloud
from handler.cloud.nova import NovaCloud, NovaReader
from handler.errors import CloudError, CloudUnexpectedAnswer, CloudUnreachable, LoginRefused
from handler.settings.env import SettingsError
from handler.simulator import CallKind, Cut, Fault, Simulator
from handler.stop.model import Server
from tests.cloud.clients import Client
from tests.cloud.conftest import StartClient


class _Region:
    """An entry of clouds.yaml as openstacksdk returns it."""

    def __init__(self, environ: Mapping[str, str], **config: Any) -> None:
        self._environ = environ
        self._entry = {"region": environ["OS_REGION_NAME"], "interface": "internal", "verify": True, **config}

    def get_auth_args(self) -> dict[str, str]:
        return {"auth_url": self._environ["OS_AUTH_URL"], **self._entry.get("auth", {})}

    def get_endpoint(self, service_type: str) -> str | None:
        url: str | None = self._entry.get(f"{service_type}_endpoint_override")
        return url

    def get_region_name(self) -> str | None:
        region: str | None = self._entry["region"]
        return region

    def get_interface(self) -> str | None:
        interface: str | None = self._entry["interface"]
        return interface

    def get_requests_verify_args(self) -> tuple[bool | str, None]:
        return self._entry["verify"], None

    def get_auth(self) -> v3.Auth:
        environ = self._environ
        return v3.Password(
            environ["OS_AUTH_URL"],
            username=environ["OS_USERNAME"],
            password=environ["OS_PASSWORD"],
            user_domain_name=environ["OS_USER_DOMAIN_NAME"],
            project_name=environ["OS_PROJECT_NAME"],
            project_domain_name=environ["OS_PROJECT_DOMAIN_NAME"],
        )


UseEntry = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def use_entry(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> UseEntry:
    """Put an entry into clouds.yaml; what was asked for is in the list that comes back."""

    def use(**config: Any) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        class ConfigException(Exception):
            pass

        class OpenStackConfig:
            def get_one(self, **wanted: Any) -> _Region:
                asked.append(wanted)
                if wanted["cloud"] != "ours" or wanted["region_name"] not in (
                    None,
                    *config.get("regions", ["eu-nl"]),
                ):
                    raise ConfigException("marked-by-the-library")
                return _Region(cloud.environ(), **config)

        for name, contents in (
            ("openstack", {}),
            ("openstack.config", {"OpenStackConfig": OpenStackConfig}),
            ("openstack.exceptions", {"ConfigException": ConfigException}),
        ):
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None)
            vars(module).update(contents)
            monkeypatch.setitem(sys.modules, name, module)
        # Loaded for each test anew, as it takes the module that is there then.
        monkeypatch.delitem(sys.modules, "handler.cloud.auth.clouds_yaml", raising=False)
        monkeypatch.delattr(auth_package, "clouds_yaml", raising=False)
        return asked

    return use


def _with_entry(cloud: Simulator, start: StartClient, **environ: str) -> Client:
    return start(cloud, **{**dict.fromkeys(cloud.environ(), ""), "OS_CLOUD": "ours", **environ})


def test_an_entry_of_clouds_yaml_logs_in(cloud: Simulator, start_client: StartClient, use_entry: UseEntry) -> None:
    """Its address, region, interface and CA bundle are taken, and its plugin makes the login."""
    asked = use_entry()
    client = _with_entry(cloud, start_client)
    server = cloud.add_server()
    assert isinstance(client.clouds.reader().read([server], 5)[server], Server)
    assert [(one["cloud"], one["region_name"]) for one in asked] == [("ours", None)]
    assert client.endpoint.url(5) == f"{cloud.url}/v2.1"
    assert cloud.count(CallKind.LOGIN) == 1


def test_the_region_of_the_settings_goes_before_that_of_the_entry(
    cloud: Simulator, start_client: StartClient, use_entry: UseEntry
) -> None:
    """The entry is asked for that region, as an entry may have several."""
    asked = use_entry()
    _with_entry(cloud, start_client, OS_REGION_NAME="eu-nl")
    assert [one["region_name"] for one in asked] == ["eu-nl"]


PROJECT = {"project_name": "prod", "project_domain_name": "D"}


@pytest.mark.parametrize(
    ("environ", "auth", "contradicting"),
    [
        ({"OS_PROJECT_NAME": "other"}, PROJECT, ["OS_PROJECT_NAME"]),
        ({"OS_PROJECT_NAME": "prod", "OS_PROJECT_DOMAIN_NAME": "E"}, PROJECT, ["OS_PROJECT_DOMAIN_NAME"]),
        ({"OS_PROJECT_ID": "p1", "OS_PROJECT_DOMAIN_ID": "d1"}, PROJECT, ["OS_PROJECT_ID", "OS_PROJECT_DOMAIN_ID"]),
        ({"OS_PROJECT_NAME": "prod"}, {}, ["OS_PROJECT_NAME"]),
    ],
)
def test_variables_that_contradict_the_entry_refuse_the_start(
    cloud: Simulator,
    start_client: StartClient,
    use_entry: UseEntry,
    environ: dict[str, str],
    auth: dict[str, str],
    contradicting: list[str],
) -> None:
    """Either could be meant; both are named, and no value is."""
    use_entry(auth=auth)
    with pytest.raises(SettingsError) as raised:
        _with_entry(cloud, start_client, **environ)
    assert [violation.split()[0] for violation in raised.value.violations] == contradicting
    assert all("OS_CLOUD" in violation for violation in raised.value.violations)


def test_variables_that_say_the_same_as_the_entry_are_taken(
    cloud: Simulator, start_client: StartClient, use_entry: UseEntry
) -> None:
    """As an openrc file beside clouds.yaml has them; the domain of a user is not that of the project."""
    use_entry(auth=PROJECT)
    same = {f"OS_{name.upper()}": value for name, value in PROJECT.items()}
    client = _with_entry(cloud, start_client, **same, OS_USER_DOMAIN_NAME="Default")
    assert client.login.access(5).project_id == cloud.project_id


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"OS_CLOUD": "theirs"}, "OS_CLOUD must name an entry of clouds.yaml."),
        ({"OS_REGION_NAME": "x"}, "OS_CLOUD must name an entry of clouds.yaml, and OS_REGION_NAME one of its regions."),
    ],
)
def test_an_entry_that_is_not_there_refuses_the_start(
    cloud: Simulator, start_client: StartClient, use_entry: UseEntry, environ: dict[str, str], shown: str
) -> None:
    """So does a region that the entry does not have."""
    use_entry()
    with pytest.raises(SettingsError) as raised:
        _with_entry(cloud, start_client, **environ)
    assert raised.value.violations == (shown,)


@pytest.mark.parametrize(
    ("api", "override", "setting"),
    [
        ("nova", "compute_endpoint_override", "AUTOSTOP_COMPUTE_URL"),
        ("bms", "bms_endpoint_override", "AUTOSTOP_BMS_URL"),
    ],
)
def test_an_endpoint_override_of_the_entry_counts(
    cloud: Simulator, start_client: StartClient, use_entry: UseEntry, api: str, override: str, setting: str
) -> None:
    """Before the catalogue, and after the setting."""
    use_entry(**{override: "http://override.example"})
    assert _with_entry(cloud, start_client, AUTOSTOP_API=api).endpoint.url(5).startswith("http://override.example/v")
    explicit = _with_entry(cloud, start_client, AUTOSTOP_API=api, **{setting: "http://explicit.example"})
    assert explicit.endpoint.url(5).startswith("http://explicit.example/v")


def test_an_endpoint_override_of_smn_counts(cloud: Simulator, start_client: StartClient, use_entry: UseEntry) -> None:
    """For results that go to a topic."""
    use_entry(smn_endpoint_override="http://override.example")
    topic = _with_entry(
        cloud, start_client, AUTOSTOP_RESULT_SINK=f"smn:urn:smn:eu-de:{'0' * 32}:results"
    ).clouds.topic()
    assert topic is not None
    assert topic.url(5).startswith("http://override.example/v2")


def test_an_endpoint_override_is_a_url(cloud: Simulator, start_client: StartClient, use_entry: UseEntry) -> None:
    """It fails at the start, and not with the first event."""
    use_entry(compute_endpoint_override="nova")
    with pytest.raises(SettingsError, match="compute_endpoint_override must be an http or https URL"):
        _with_entry(cloud, start_client)


@pytest.mark.parametrize(
    "config",
    [{"region": "elsewhere"}, {"interface": "admin"}],
)
def test_region_and_interface_of_the_entry_count(
    cloud: Simulator, start_client: StartClient, use_entry: UseEntry, config: dict[str, str]
) -> None:
    """What the catalogue does not have there is not looked for anywhere else."""
    use_entry(**config)
    with pytest.raises(CloudUnexpectedAnswer, match="the catalogue does not have it"):
        _with_entry(cloud, start_client).endpoint.url(5)


def test_an_entry_that_leaves_region_and_interface_open_is_enough(
    cloud: Simulator, start_client: StartClient, use_entry: UseEntry
) -> None:
    """The only region, and the interface of the settings."""
    use_entry(region=None, interface=None)
    assert _with_entry(cloud, start_client).endpoint.url(5) == f"{cloud.url}/v2.1"


@pytest.mark.parametrize("verify", [False, "/etc/ssl/our-own.pem"])
def test_the_entry_says_how_certificates_are_checked(
    cloud: Simulator, start_client: StartClient, use_entry: UseEntry, verify: bool | str
) -> None:
    """As `verify` and `cacert` stand in it."""
    use_entry(verify=verify)
    assert _with_entry(cloud, start_client).clouds.client.verify == verify


@pytest.mark.parametrize(("api", "reader", "writer"), [("nova", NovaReader, NovaCloud), ("bms", BmsReader, BmsCloud)])
def test_a_dry_run_gets_a_reader_and_nothing_else(
    start_client: StartClient, api: str, reader: type, writer: type
) -> None:
    """The half that only looks has no method that stops; a real event gets a cloud of its own."""
    with Simulator.otc() as cloud:
        clouds = start_client(cloud, AUTOSTOP_API=api).clouds
        assert type(clouds.reader()) is reader
        assert not hasattr(clouds.reader(), "stop")
        assert isinstance(clouds.cloud(dry_run=True), DryRunCloud)
        assert clouds.cloud(dry_run=True).api == api
        assert type(clouds.cloud(dry_run=False)) is writer
        assert clouds.cloud(dry_run=False) is not clouds.cloud(dry_run=False)
        assert cloud.calls == []


def test_each_kind_of_login_is_made_from_its_settings(cloud: Simulator, start_client: StartClient) -> None:
    """Each of them reads the same server; only those that need it ask Keystone for a token."""
    server, blank = cloud.add_server(), dict.fromkeys(cloud.environ(), "")
    place = {"OS_AUTH_URL": cloud.auth_url, "OS_REGION_NAME": "RegionOne"}
    id_, secret = cloud.add_application_credential()
    kinds: dict[type, list[dict[str, str]]] = {
        KeystoneLogin: [
            {},
            {
                **blank,
                **place,
                "OS_AUTH_TYPE": "v3applicationcredential",
                "OS_APPLICATION_CREDENTIAL_ID": id_,
                "OS_APPLICATION_CREDENTIAL_SECRET": secret,
            },
        ],
        AccessKeyAuth: [
            {
                **blank,
                **{**cloud.key_environ(cloud.add_access_key()), "OS_PROJECT_NAME": ""},
                "OS_PROJECT_ID": cloud.project_id,
                "AUTOSTOP_COMPUTE_URL": cloud.url,
            }
        ],
    }
    for kind, environs in kinds.items():
        for environ in environs:
            client, before = start_client(cloud, **environ), cloud.count(CallKind.LOGIN)
            assert type(client.login) is kind
            assert isinstance(client.clouds.reader().read([server], 5)[server], Server)
            assert cloud.count(CallKind.LOGIN) - before == (kind is KeystoneLogin)


def test_a_ready_token_is_used_as_it_is(cloud: Simulator, start_client: StartClient) -> None:
    """No login is made, and the address is the explicit one."""
    blank = dict.fromkeys(cloud.environ(), "")
    ready = {"OS_AUTH_TYPE": "admin_token", "OS_TOKEN": cloud.token(), "OS_PROJECT_ID": cloud.project_id}
    client = start_client(cloud, **{**blank, **ready, "AUTOSTOP_COMPUTE_URL": cloud.url})
    server = cloud.add_server()
    assert type(client.login) is StaticToken
    assert isinstance(client.nova.read([server], 5)[server], Server)
    assert cloud.count(CallKind.LOGIN) == 0


@pytest.mark.parametrize(
    ("fault", "kind", "shown"),
    [
        (Fault(on=CallKind.LOGIN, status=401), LoginRefused, "logging in: HTTP 401"),
        (Fault(on=CallKind.LOGIN, status=503), CloudUnreachable, "logging in: HTTP 503"),
        (Fault(on=CallKind.LOGIN, cut=Cut.AFTER), CloudUnreachable, "logging in: no answer"),
        (Fault(on=CallKind.LOGIN, status=201, body="{}"), CloudUnexpectedAnswer, "logging in: no usable answer"),
    ],
)
def test_a_login_by_an_entry_fails_as_any_other(
    cloud: Simulator,
    start_client: StartClient,
    use_entry: UseEntry,
    fault: Fault,
    kind: type[CloudError],
    shown: str,
) -> None:
    """Refused, passing or confused; and never as if a server might have been acted on."""
    use_entry()
    cloud.inject(fault)
    with pytest.raises(kind, match=shown) as caught:
        _with_entry(cloud, start_client).login.access(5)
    assert caught.value.maybe_acted is False


def test_an_entry_brings_the_whole_access(cloud: Simulator, start_client: StartClient, use_entry: UseEntry) -> None:
    """Project, roles, catalogue, and how long the token is good for."""
    use_entry()
    by_entry = _with_entry(cloud, start_client).login.access(5)
    by_password = start_client(cloud).login.access(5)
    assert by_entry.project_id == by_password.project_id == cloud.project_id
    assert by_entry.roles == by_password.roles != ()
    assert set(by_entry.catalogue or ()) == set(by_password.catalogue or ()) != set()
    assert by_entry.expires_in == pytest.approx(by_password.expires_in, abs=2)

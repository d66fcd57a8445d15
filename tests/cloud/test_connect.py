"""From settings to connections: each kind of login, an entry of clouds.yaml, and the API."""

from __future__ import annotations

import sys
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

    def __init__(self, environ: dict[str, str], **config: Any) -> None:
        self._environ = environ
        self._entry = {"region": environ["OS_REGION_NAME"], "interface": "internal", "verify": True, **config}

    def get_auth_args(self) -> dict[str, str]:
        return {"auth_url": self._environ["OS_AUTH_URL"], **self._entry.get("auth", {})}

    def get_endpoint(self, service_type: str) -> Any:
        return self._entry.get(f"{service_type}_endpoint_override")

    def get_region_name(self) -> Any:
        return self._entry["region"]

    def get_interface(self) -> Any:
        return self._entry["interface"]

    def get_requests_verify_args(self) -> tuple[Any, None]:
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


class CloudsYaml:
    """A fake openstacksdk with one entry, `ours`, in clouds.yaml.

    Attributes:
        config: what the entry has.
        requested: what entries were requested with.
    """

    def __init__(self, cloud: Simulator, start_client: StartClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config: dict[str, Any] = {}
        self.requested: list[dict[str, Any]] = []
        self._cloud, self._start_client = cloud, start_client
        clouds_yaml = self

        class ConfigException(Exception):
            pass

        class OpenStackConfig:
            def get_one(self, **wanted: Any) -> _Region:
                clouds_yaml.requested.append(wanted)
                if wanted["cloud"] != "ours" or wanted["region_name"] not in (None, "eu-nl"):
                    raise ConfigException("marked-by-the-library")
                return _Region(dict(cloud.environ()), **clouds_yaml.config)

        for name, contents in (
            ("openstack", {}),
            ("openstack.config", {"OpenStackConfig": OpenStackConfig}),
            ("openstack.exceptions", {"ConfigException": ConfigException}),
        ):
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None)
            vars(module).update(contents)
            monkeypatch.setitem(sys.modules, name, module)
        # Loaded anew for each test, with the modules that are there then.
        monkeypatch.delitem(sys.modules, "handler.cloud.auth.clouds_yaml", raising=False)
        monkeypatch.delattr(auth_package, "clouds_yaml", raising=False)

    def start(self, **environ: str) -> Client:
        """Make a client with the entry and these settings."""
        unset = dict.fromkeys(self._cloud.environ(), "")
        return self._start_client(self._cloud, **{**unset, "OS_CLOUD": "ours", **environ})


@pytest.fixture
def clouds_yaml(cloud: Simulator, start_client: StartClient, monkeypatch: pytest.MonkeyPatch) -> CloudsYaml:
    """Clouds.yaml with an entry for the simulated cloud."""
    return CloudsYaml(cloud, start_client, monkeypatch)


def test_an_entry_of_clouds_yaml_logs_in(cloud: Simulator, start_client: StartClient, clouds_yaml: CloudsYaml) -> None:
    """With its URL, region, interface and plugin; its token has all that that of a password has."""
    client, server = clouds_yaml.start(), cloud.add_server()
    assert isinstance(client.clouds.reader().read([server], 5)[server], Server)
    assert [(one["cloud"], one["region_name"]) for one in clouds_yaml.requested] == [("ours", None)]
    assert client.endpoint.url(5) == f"{cloud.url}/v2.1"
    assert cloud.count(CallKind.LOGIN) == 1
    by_entry, by_password = client.login.access(5), start_client(cloud).login.access(5)
    assert by_entry.project_id == by_password.project_id == cloud.project_id
    assert by_entry.roles == by_password.roles != ()
    assert set(by_entry.catalogue or ()) == set(by_password.catalogue or ()) != set()
    assert by_entry.expires_in == pytest.approx(by_password.expires_in, abs=2)


def test_the_region_of_the_settings_overrides_that_of_the_entry(clouds_yaml: CloudsYaml) -> None:
    """An entry may have several."""
    clouds_yaml.start(OS_REGION_NAME="eu-nl")
    assert [one["region_name"] for one in clouds_yaml.requested] == ["eu-nl"]


PROJECT = {"project_name": "prod", "project_domain_name": "D"}


@pytest.mark.parametrize(
    ("environ", "auth", "names"),
    [
        ({"OS_PROJECT_NAME": "other"}, PROJECT, ["OS_PROJECT_NAME"]),
        ({"OS_PROJECT_NAME": "prod", "OS_PROJECT_DOMAIN_NAME": "E"}, PROJECT, ["OS_PROJECT_DOMAIN_NAME"]),
        ({"OS_PROJECT_ID": "p1", "OS_PROJECT_DOMAIN_ID": "d1"}, PROJECT, ["OS_PROJECT_ID", "OS_PROJECT_DOMAIN_ID"]),
        ({"OS_PROJECT_NAME": "prod"}, {}, ["OS_PROJECT_NAME"]),
    ],
)
def test_variables_must_not_contradict_the_entry(
    clouds_yaml: CloudsYaml, environ: dict[str, str], auth: dict[str, str], names: list[str]
) -> None:
    """Either could be meant; both are named without their values."""
    clouds_yaml.config = {"auth": auth}
    with pytest.raises(SettingsError) as raised:
        clouds_yaml.start(**environ)
    assert [violation.split()[0] for violation in raised.value.violations] == names
    assert all("OS_CLOUD" in violation for violation in raised.value.violations)


def test_variables_may_repeat_the_entry(cloud: Simulator, clouds_yaml: CloudsYaml) -> None:
    """As an openrc file beside clouds.yaml does; the domain of a user is not that of the project."""
    clouds_yaml.config = {"auth": PROJECT}
    same = {f"OS_{name.upper()}": value for name, value in PROJECT.items()}
    client = clouds_yaml.start(**same, OS_USER_DOMAIN_NAME="Default")
    assert client.login.access(5).project_id == cloud.project_id


@pytest.mark.parametrize(
    ("config", "environ", "violation"),
    [
        ({}, {"OS_CLOUD": "theirs"}, "OS_CLOUD must name an entry of clouds.yaml."),
        (
            {},
            {"OS_REGION_NAME": "x"},
            "OS_CLOUD must name an entry of clouds.yaml, and OS_REGION_NAME one of its regions.",
        ),
        (
            {"compute_endpoint_override": "nova"},
            {},
            "OS_CLOUD names an entry whose compute_endpoint_override must be an http or https URL.",
        ),
    ],
)
def test_an_entry_must_exist_and_be_valid(
    clouds_yaml: CloudsYaml, config: dict[str, str], environ: dict[str, str], violation: str
) -> None:
    """The function does not start."""
    clouds_yaml.config = config
    with pytest.raises(SettingsError) as raised:
        clouds_yaml.start(**environ)
    assert raised.value.violations == (violation,)


@pytest.mark.parametrize(("api", "type_"), [("nova", "compute"), ("bms", "bms")])
def test_an_endpoint_override_of_the_entry_is_used(clouds_yaml: CloudsYaml, api: str, type_: str) -> None:
    """In place of the catalogue's; the URL of the settings comes first."""
    clouds_yaml.config = {f"{type_}_endpoint_override": "http://override.example"}
    assert clouds_yaml.start(AUTOSTOP_API=api).endpoint.url(5).startswith("http://override.example/v")
    setting = {f"AUTOSTOP_{type_.upper()}_URL": "http://explicit.example"}
    assert clouds_yaml.start(AUTOSTOP_API=api, **setting).endpoint.url(5).startswith("http://explicit.example/v")


def test_an_endpoint_override_of_smn_is_used(clouds_yaml: CloudsYaml) -> None:
    """For results that go to a topic."""
    clouds_yaml.config = {"smn_endpoint_override": "http://override.example"}
    topic = clouds_yaml.start(AUTOSTOP_RESULT_SINK=f"smn:urn:smn:eu-de:{'0' * 32}:results").clouds.topic()
    assert topic is not None
    assert topic.url(5).startswith("http://override.example/v2")


@pytest.mark.parametrize("config", [{"region": "elsewhere"}, {"interface": "admin"}])
def test_region_and_interface_of_the_entry_are_used(clouds_yaml: CloudsYaml, config: dict[str, str]) -> None:
    """No other URL of the catalogue is used instead."""
    clouds_yaml.config = config
    with pytest.raises(CloudUnexpectedAnswer, match="the catalogue does not have it"):
        clouds_yaml.start().endpoint.url(5)


def test_an_entry_may_have_neither_region_nor_interface(cloud: Simulator, clouds_yaml: CloudsYaml) -> None:
    """The only region is used, and the interface of the settings."""
    clouds_yaml.config = {"region": None, "interface": None}
    assert clouds_yaml.start().endpoint.url(5) == f"{cloud.url}/v2.1"


@pytest.mark.parametrize("verify", [False, "/etc/ssl/our-own.pem"])
def test_verify_and_cacert_of_the_entry_are_used(clouds_yaml: CloudsYaml, verify: bool | str) -> None:
    """For the calls to the APIs, too."""
    clouds_yaml.config = {"verify": verify}
    assert clouds_yaml.start().clouds.client.verify == verify


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
    cloud: Simulator, clouds_yaml: CloudsYaml, fault: Fault, kind: type[CloudError], shown: str
) -> None:
    """It never acted on a server."""
    cloud.inject(fault)
    with pytest.raises(kind, match=shown) as caught:
        clouds_yaml.start().login.access(5)
    assert caught.value.maybe_acted is False


@pytest.mark.parametrize(("api", "reader", "writer"), [("nova", NovaReader, NovaCloud), ("bms", BmsReader, BmsCloud)])
def test_a_dry_run_gets_a_reader(start_client: StartClient, api: str, reader: type, writer: type) -> None:
    """It has no method that stops; each real event gets a cloud of its own."""
    with Simulator.otc() as cloud:
        clouds = start_client(cloud, AUTOSTOP_API=api).clouds
        assert type(clouds.reader()) is reader
        assert not hasattr(clouds.reader(), "stop")
        assert isinstance(clouds.cloud(dry_run=True), DryRunCloud)
        assert clouds.cloud(dry_run=True).api == api
        assert type(clouds.cloud(dry_run=False)) is writer
        assert clouds.cloud(dry_run=False) is not clouds.cloud(dry_run=False)
        assert cloud.calls == []


def test_each_kind_of_login_reads_a_server(cloud: Simulator, start_client: StartClient) -> None:
    """Only those that need it request a token from Keystone."""
    server, unset = cloud.add_server(), dict.fromkeys(cloud.environ(), "")
    id_, secret = cloud.add_application_credential()
    credential = {
        "OS_AUTH_URL": cloud.auth_url,
        "OS_REGION_NAME": "RegionOne",
        "OS_AUTH_TYPE": "v3applicationcredential",
        "OS_APPLICATION_CREDENTIAL_ID": id_,
        "OS_APPLICATION_CREDENTIAL_SECRET": secret,
    }
    key = {**cloud.key_environ(cloud.add_access_key()), "OS_PROJECT_NAME": ""}
    token = {"OS_AUTH_TYPE": "admin_token", "OS_TOKEN": cloud.token()}
    explicit = {"OS_PROJECT_ID": cloud.project_id, "AUTOSTOP_COMPUTE_URL": cloud.url}
    for environ, kind in (
        ({}, KeystoneLogin),
        ({**unset, **credential}, KeystoneLogin),
        ({**unset, **key, **explicit}, AccessKeyAuth),
        ({**unset, **token, **explicit}, StaticToken),
    ):
        client, before = start_client(cloud, **environ), cloud.count(CallKind.LOGIN)
        assert type(client.login) is kind
        assert isinstance(client.clouds.reader().read([server], 5)[server], Server)
        assert cloud.count(CallKind.LOGIN) - before == (kind is KeystoneLogin)

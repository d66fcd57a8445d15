"""The URL of an API: explicit, or from the catalogue."""

from __future__ import annotations

import pytest

from handler.cloud.auth.login import CatalogEntry, Login, Token
from handler.cloud.endpoint import BMS, NOVA, SMN, Api, Endpoint
from handler.errors import EndpointUnusable, InsecureEndpoint
from handler.settings.env import Secret


class FakeLogin(Login):
    """A login with a catalogue."""

    def __init__(self, *catalogue: CatalogEntry) -> None:
        super().__init__()
        self._catalogue = catalogue

    def _obtain(self) -> Token:
        return Token(project_id="p", catalogue=self._catalogue, token=Secret("t"))


def _endpoint(
    *catalogue: CatalogEntry,
    region: str | None = "one",
    explicit: str | None = None,
    api: Api = NOVA,
    auth_url: str = "https://iam.test/v3",
) -> Endpoint:
    return Endpoint(FakeLogin(*catalogue), api, explicit=explicit, region=region, interface="public", auth_url=auth_url)


def _url(*urls: str, api: Api = NOVA, explicit: str | None = None, auth_url: str = "https://iam.test/v3") -> str:
    """The URL of an API for which the catalogue has these."""
    catalogue = (CatalogEntry(api.service_type, "public", "one", url) for url in urls)
    return _endpoint(*catalogue, api=api, explicit=explicit, auth_url=auth_url).url(5)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://ecs.eu-de.otc.t-systems.com", "https://ecs.eu-de.otc.t-systems.com/v2.1"),
        ("https://ecs.test/", "https://ecs.test/v2.1"),
        ("https://ecs.test:8774/v2.1", "https://ecs.test:8774/v2.1"),
        ("https://ecs.test/v2.1/", "https://ecs.test/v2.1"),
        ("https://ecs.test/v2", "https://ecs.test/v2.1"),
        ("https://ecs.test/v2.0", "https://ecs.test/v2.1"),
        ("https://ecs.test/compute", "https://ecs.test/compute/v2.1"),
        ("https://ecs.test/compute/v2.1", "https://ecs.test/compute/v2.1"),
        ("https://ecs.test/v20", "https://ecs.test/v20/v2.1"),
        ("https://ecs.test/v2.1?x=1#y", "https://ecs.test/v2.1"),
    ],
)
def test_a_url_gets_the_version_and_an_explicit_one_the_project(url: str, expected: str) -> None:
    """Open Telekom Cloud requires the project in it; whether a URL of the catalogue has it, the catalogue decides."""
    assert _url(explicit=url) == f"{expected}/p"
    assert _url(url) == expected


@pytest.mark.parametrize(
    ("path", "expected"), [("v2/abc", "v2.1/abc"), ("v2.1/abc/", "v2.1/abc"), ("v2/v2", "v2.1/v2")]
)
def test_a_url_with_a_project_keeps_it(path: str, expected: str) -> None:
    """Whether it is explicit or from the catalogue."""
    url = f"https://ecs.test/{path}"
    assert _url(url) == _url(explicit=url) == f"https://ecs.test/{expected}"


@pytest.mark.parametrize("url", ["", "nova.test/v2.1", "//nova.test/v2.1", "ftp://nova.test/v2.1"])
def test_a_url_of_another_scheme_than_http_is_ignored(url: str) -> None:
    """A valid one beside it is used; without one nothing is sent."""
    assert _url(url, "https://nova.test/v2.1") == "https://nova.test/v2.1"
    with pytest.raises(EndpointUnusable, match="the catalogue does not have it in region one"):
        _url(url)
    assert not _endpoint(CatalogEntry("compute", "public", "one", url)).listed(5)


@pytest.mark.parametrize(
    ("api", "setting"),
    [(NOVA, "AUTOSTOP_COMPUTE_URL"), (BMS, "AUTOSTOP_BMS_URL"), (SMN, "AUTOSTOP_SMN_URL")],
)
@pytest.mark.parametrize("auth_url", ["https://iam.test/v3", "HTTPS://iam.test/v3", ""])
def test_an_http_url_of_the_catalogue_is_refused_after_an_https_login(api: Api, setting: str, auth_url: str) -> None:
    """The error names the API, the host, and the setting that would allow it."""
    with pytest.raises(InsecureEndpoint) as caught:
        _url("http://api.test:8774/", api=api, auth_url=auth_url)
    assert f"finding the {api.service_type} API" in str(caught.value)
    assert "(host api.test)" in str(caught.value)
    assert setting in str(caught.value)
    assert caught.value.waiting_helps is False


@pytest.mark.parametrize("host", ["<b>", "[::1", "a b", "", "x" * 300])
def test_an_invalid_host_is_not_quoted(host: str) -> None:
    """The error is about the scheme."""
    with pytest.raises(InsecureEndpoint) as caught:
        _url(f"http://{host}/v2.1")
    assert "(host" not in str(caught.value)


def test_an_http_url_is_used_if_it_is_configured_or_the_login_is_http() -> None:
    """And not needed if the catalogue has an https URL too."""
    url = "http://nova.test/v2.1"
    assert _url(url, explicit="http://other.test/v2.1") == "http://other.test/v2.1/p"
    assert _url(url, auth_url="http://iam.test/v3") == url
    assert _url(url, "https://nova.test/v2.1") == "https://nova.test/v2.1"


TWO = (
    CatalogEntry("compute", "public", "east", "https://east.test/v2.1"),
    CatalogEntry("compute", "public", "west", "https://west.test/v2.1"),
)


def test_one_of_several_regions_must_be_configured() -> None:
    """The error names them; the first one would be a guess."""
    with pytest.raises(
        EndpointUnusable, match=r"several regions \(east, west\); OS_REGION_NAME must name one"
    ) as caught:
        _endpoint(*TWO, region=None).url(5)
    assert not caught.value.waiting_helps
    with pytest.raises(EndpointUnusable):
        _endpoint(*TWO, region=None).listed(5)
    # The message is in a response.
    with pytest.raises(EndpointUnusable, match=r"\(\(no usable name\), east\)"):
        _endpoint(TWO[0], TWO[1]._replace(region="<script>"), region=None).url(5)


def test_other_regions_services_and_interfaces_are_ignored() -> None:
    """If a region or a URL is configured, or the API is in one region only."""
    assert _endpoint(*TWO, region="west").url(5) == "https://west.test/v2.1"
    assert _endpoint(*TWO, region=None, explicit="https://own.test").url(5) == "https://own.test/v2.1/p"
    others = (TWO[0], TWO[1]._replace(interface="admin"), TWO[1]._replace(service_type="image"))
    assert _endpoint(*others, region=None).url(5) == "https://east.test/v2.1"
    assert _endpoint(*others, region=None).listed(5)
    for entries in (TWO, [entry._replace(region="one", interface="admin") for entry in TWO]):
        with pytest.raises(EndpointUnusable, match="the catalogue does not have it in region one"):
            _endpoint(*entries).url(5)

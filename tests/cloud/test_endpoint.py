"""Where an API is, by a catalogue that names nothing usable, or an http URL after a login over https."""

from __future__ import annotations

import pytest

from handler.cloud.auth.login import CatalogEntry, Login, Token
from handler.cloud.endpoint import BMS, NOVA, SMN, Api, Endpoint
from handler.errors import EndpointUnusable, InsecureEndpoint


class Given(Login):
    """A login that brings this catalogue."""

    def __init__(self, *places: CatalogEntry) -> None:
        super().__init__()
        self._places = places

    def _obtain(self) -> Token:
        return Token(project_id="p", catalogue=self._places, token="t")


def _endpoint(
    *places: CatalogEntry,
    region: str | None = "one",
    explicit: str | None = None,
    api: Api = NOVA,
    auth_url: str = "https://iam.test/v3",
) -> Endpoint:
    return Endpoint(Given(*places), api, explicit=explicit, region=region, interface="public", auth_url=auth_url)


def _found(*urls: str, api: Api = NOVA, explicit: str | None = None, auth_url: str = "https://iam.test/v3") -> str:
    places = (CatalogEntry(api.service_type, "public", "one", url) for url in urls)
    return _endpoint(*places, api=api, explicit=explicit, auth_url=auth_url).url(5)


@pytest.mark.parametrize("url", ["", "nova.test/v2.1", "//nova.test/v2.1", "ftp://nova.test/v2.1"])
def test_a_url_of_another_scheme_than_http_is_ignored(url: str) -> None:
    """A good one beside it is taken; without one nothing is sent anywhere."""
    assert _found(url, "https://nova.test/v2.1") == "https://nova.test/v2.1"
    with pytest.raises(EndpointUnusable, match="the catalogue does not have it in region one"):
        _found(url)
    assert not _endpoint(CatalogEntry("compute", "public", "one", url)).listed(5)


@pytest.mark.parametrize(
    ("api", "setting"),
    [(NOVA, "AUTOSTOP_COMPUTE_URL"), (BMS, "AUTOSTOP_BMS_URL"), (SMN, "AUTOSTOP_SMN_URL")],
)
@pytest.mark.parametrize("auth_url", ["https://iam.test/v3", "HTTPS://iam.test/v3", ""])
def test_an_http_url_of_the_catalogue_is_refused_after_an_https_login(api: Api, setting: str, auth_url: str) -> None:
    """The error names the API, the host, and the setting that would allow it."""
    with pytest.raises(InsecureEndpoint) as caught:
        _found("http://api.test:8774/", api=api, auth_url=auth_url)
    assert f"finding the {api.service_type} API" in str(caught.value)
    assert "(host api.test)" in str(caught.value)
    assert setting in str(caught.value)
    assert caught.value.waiting_helps is False


@pytest.mark.parametrize("host", ["<b>", "[::1", "a b", "", "x" * 300])
def test_a_host_that_is_not_a_host_name_is_not_quoted(host: str) -> None:
    """Whatever the catalogue says, the error is about the scheme."""
    with pytest.raises(InsecureEndpoint) as caught:
        _found(f"http://{host}/v2.1")
    assert "(host" not in str(caught.value)


def test_an_http_url_is_used_if_it_is_configured_or_the_login_is_http() -> None:
    """And not needed if the catalogue has an https URL too."""
    url = "http://nova.test/v2.1"
    assert _found(url, explicit="http://other.test/v2.1") == "http://other.test/v2.1/p"
    assert _found(url, auth_url="http://iam.test/v3") == url
    assert _found(url, "https://nova.test/v2.1") == "https://nova.test/v2.1"


TWO = (
    CatalogEntry("compute", "public", "east", "https://east.test/v2.1"),
    CatalogEntry("compute", "public", "west", "https://west.test/v2.1"),
)


def test_several_regions_and_none_configured_is_no_address() -> None:
    """Both are named; the first one would be a guess."""
    with pytest.raises(EndpointUnusable, match=r"several regions \(east, west\); OS_REGION_NAME must name one"):
        _endpoint(*TWO, region=None).url(5)
    with pytest.raises(EndpointUnusable):
        _endpoint(*TWO, region=None).listed(5)
    assert not EndpointUnusable("x").waiting_helps


def test_with_a_region_configured_or_a_url_the_others_do_not_matter() -> None:
    """Nor do other services and interfaces there."""
    assert _endpoint(*TWO, region="west").url(5) == "https://west.test/v2.1"
    assert _endpoint(*TWO, region=None, explicit="https://own.test").url(5) == "https://own.test/v2.1/p"
    others = (TWO[0], TWO[1]._replace(interface="admin"), TWO[1]._replace(service_type="image"))
    assert _endpoint(*others, region=None).url(5) == "https://east.test/v2.1"
    assert _endpoint(*others, region=None).listed(5)


def test_a_region_with_a_name_that_no_region_has_is_not_quoted() -> None:
    """The message stands in an answer."""
    odd = TWO[1]._replace(region="<script>")
    with pytest.raises(EndpointUnusable, match=r"\(\(no usable name\), east\)"):
        _endpoint(TWO[0], odd, region=None).url(5)

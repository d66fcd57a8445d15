"""Where an API is, by a catalogue that names nothing usable, or an http URL after a login over https."""

from __future__ import annotations

import pytest

from handler.cloud.auth.login import CatalogEntry, Login, Token
from handler.cloud.endpoint import BMS, NOVA, SMN, Api, Endpoint
from handler.errors import CloudUnexpectedAnswer, InsecureEndpoint


class Given(Login):
    """A login that brings this catalogue."""

    def __init__(self, *places: CatalogEntry) -> None:
        super().__init__()
        self._places = places

    def _obtain(self) -> Token:
        return Token(project_id="p", catalogue=self._places, token="t")


def _found(*urls: str, api: Api = NOVA, explicit: str | None = None, auth_url: str = "https://iam.test/v3") -> str:
    login = Given(*(CatalogEntry(api.service_type, "public", "one", url) for url in urls))
    endpoint = Endpoint(login, api, explicit=explicit, region="one", interface="public", auth_url=auth_url)
    return endpoint.url(5)


@pytest.mark.parametrize("url", ["", "nova.test/v2.1", "//nova.test/v2.1", "ftp://nova.test/v2.1"])
def test_a_place_that_is_no_http_url_is_passed_over(url: str) -> None:
    """A good one beside it is taken; without one there is no telling where to go, and nothing is sent anywhere."""
    assert _found(url, "https://nova.test/v2.1") == "https://nova.test/v2.1"
    with pytest.raises(CloudUnexpectedAnswer, match="the catalogue does not have it"):
        _found(url)


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
def test_a_host_that_is_no_host_name_is_not_quoted(host: str) -> None:
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

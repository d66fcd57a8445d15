"""Where an API is, by a catalogue that says nothing that could be called."""

from __future__ import annotations

import pytest

from handler.cloud.auth.login import CatalogEntry, Login, Token
from handler.cloud.endpoint import NOVA, Endpoint
from handler.errors import CloudUnexpectedAnswer


class Given(Login):
    """A login that brings this catalogue."""

    def __init__(self, *places: CatalogEntry) -> None:
        super().__init__()
        self._places = places

    def _obtain(self) -> Token:
        return Token(project_id="p", catalogue=self._places, token="t")


def _found(*urls: str) -> str:
    login = Given(*(CatalogEntry("compute", "public", "one", url) for url in urls))
    endpoint = Endpoint(login, NOVA, explicit=None, region="one", interface="public", auth_url="https://iam.test/v3")
    return endpoint.url(5)


@pytest.mark.parametrize("url", ["", "nova.test/v2.1", "//nova.test/v2.1", "ftp://nova.test/v2.1"])
def test_a_place_that_is_no_http_url_is_passed_over(url: str) -> None:
    """A good one beside it is taken; without one there is no telling where to go, and nothing is sent anywhere."""
    assert _found(url, "https://nova.test/v2.1") == "https://nova.test/v2.1"
    with pytest.raises(CloudUnexpectedAnswer, match="the catalogue does not have it"):
        _found(url)

"""A cloud that repeats in its errors whatever it was sent, as some gateways do; and a correct one, if so configured."""

from __future__ import annotations

import json
from typing import Any

from tests.support.http_server import Handler, HttpServer

TOKEN = "marked-issued-token"
PROJECT = "0123456789abcdef0123456789abcdef"


def _server(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "name": "db-1",
        "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:task_state": None,
        "locked": False,
        "tags": [],
        "metadata": {},
        "flavor": {"id": "physical.o2.medium"},
        "updated": "2026-11-20T18:00:00Z",
    }


def _texts(document: object) -> list[str]:
    """The texts in a document, in its order."""
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        return [text for part in document for text in _texts(part)]
    return [str(document)]


class EchoCloud(HttpServer):
    """A Keystone, a Nova and a BMS v1, each as far as it is needed.

    Attributes:
        login_status, stop_status, status: what logins, stops, and all other calls are answered with; below 300 as is
            correct.
        raw: errors are plain text instead of JSON.
    """

    def __init__(self) -> None:
        self.login_status = 201
        self.status = self.stop_status = 200
        self.raw = False
        cloud = self

        class Answers(Handler):
            def _answer(self) -> None:
                body = self.read_body()
                is_login = "/auth/" in self.path or "/projects" in self.path
                status = cloud.login_status if is_login else cloud.status
                if self.path.endswith("action"):
                    status = cloud.stop_status
                headers, document = {}, cloud._correct(self.path)
                if status >= 300:
                    # Credentials are mostly last, and messages are cut off at some length.
                    headers = {"X-Request-Id": self.headers.get("X-Auth-Token") or ""}
                    carried = [value for name, value in self.headers.items() if name.lower() != "accept"]
                    echo = " ".join([*reversed(_texts(json.loads(body or b"0"))), *reversed(carried)])
                    document = {"error": {"code": status, "message": echo, "title": echo}}
                    # Some call it this way, in parts so that each fits into a short message.
                    if self.path.endswith("action"):
                        document = {"error_code": carried[-1], "error_msg": carried[-1], "request_id": carried[-1]}
                elif is_login:
                    headers = {"X-Subject-Token": TOKEN}
                out = json.dumps(document).encode()
                if cloud.raw and status >= 300:
                    out = f"<html>{document}</html>".encode()
                self.reply(status, out, headers)

            do_GET = do_POST = _answer

        super().__init__(Answers)
        self.url = self.origin

    def _correct(self, path: str) -> dict[str, Any]:
        if "/projects" in path:
            return {"projects": [{"id": PROJECT, "name": "eu-de"}]}
        if "/auth/" in path:
            endpoints = [{"interface": "public", "region": "R", "url": f"{self.url}/v2.1/{PROJECT}"}]
            return {
                "token": {
                    "issued_at": "2026-11-20T18:00:00Z",
                    "expires_at": "2036-11-20T18:00:00Z",
                    "project": {"id": PROJECT},
                    "roles": [{"name": "member"}],
                    "catalog": [{"type": "compute", "endpoints": endpoints}],
                }
            }
        if path.endswith("os-instance-actions"):
            return {"instanceActions": []}
        return {"server": _server(path.rpartition("/")[2]), "servers": []}

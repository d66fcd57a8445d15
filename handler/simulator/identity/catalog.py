"""The service catalogue that comes with a token."""

import uuid
from dataclasses import dataclass, field
from enum import StrEnum

from handler.simulator.identity.model import Token

# A real catalogue has several services: a client that takes just any endpoint must fail here.
_OTHERS = (("network", "neutron", "/network"), ("image", "glance", "/image"))


class ComputePath(StrEnum):
    """The path of the catalogue's compute URL; on Open Telekom Cloud it has the project.

    A client that asks for a range of versions requests the parent paths until one is a list of versions. At the root
    of the port that is Keystone's, which is the wrong one; below the prefix it is Nova's, as on DevStack.
    """

    PLAIN = "/v2.1"
    PREFIXED = "/compute/v2.1"
    PROJECT = "/v2.1/{project_id}"
    LEGACY_PROJECT = "/v2/{project_id}"


@dataclass(slots=True, kw_only=True)
class Catalog:
    """The catalogue of a cloud.

    Args:
        region: the id of the simulated region.
        compute: the form of the compute URL.
        bms: the form of the URL of the BMS API; empty if the cloud has none.
        smn: whether there is SMN; its URL has no project in it, as on Open Telekom Cloud.
        more_regions: others, at whose URLs there is no server.
        base_url: scheme, host and port of all URLs.
    """

    region: str
    compute: str
    bms: str
    smn: bool
    more_regions: tuple[str, ...]
    base_url: str = ""
    _ids: dict[str, str] = field(default_factory=dict)

    def entries(self, token: Token) -> list[dict[str, object]]:
        """Return the catalogue for the project of a token; empty without a project."""
        if token.project is None:
            return []
        compute = self.compute.format(project_id=token.project.id)
        services = [("compute", "nova", compute), *_OTHERS, ("identity", "keystone", "/v3")]
        if self.bms:
            services.insert(1, ("bms", "bms", self.bms.format(project_id=token.project.id)))
        if self.smn:
            services.append(("smn", "SimpleMessageNotification", "/v2/"))
        return [self._service(kind, name, path) for kind, name, path in services]

    def _service(self, kind: str, name: str, path: str) -> dict[str, object]:
        interfaces = ("admin", "internal", "public") if kind == "identity" else ("public", "internal")
        endpoints = [
            {
                "id": self._id(f"{kind}/{interface}/{region}"),
                "interface": interface,
                "region_id": region,
                "url": f"{self.base_url}{path if region == self.region else f'/{region}{path}'}",
                "region": region,
            }
            for region in (self.region, *self.more_regions)
            for interface in interfaces
        ]
        return {"endpoints": endpoints, "id": self._id(kind), "type": kind, "name": name}

    def _id(self, what: str) -> str:
        return self._ids.setdefault(what, uuid.uuid4().hex)

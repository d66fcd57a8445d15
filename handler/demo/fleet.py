"""The servers of the demo: the ids are those that README and `events/samples` name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from handler import rfc3339
from handler.simulator import Simulator

CI_07 = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
CI_08 = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"
CI_09 = "d2b1d3c7-52ce-4f0b-9b3e-2f4a3f6f9b02"
CI_10 = "9b2f7c1e-4d3a-4e8b-a1c5-7f6e5d4c3b2a"
CI_11 = "4e0b8a6d-1c5f-4f27-9d38-6b7a8c9d0e1f"
DB_01 = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
DB_02 = "3d813cbb-47fb-42ba-91df-831e1593ac29"
WEB_01 = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
GPU_01 = "8a1d5c3e-7b2f-4e60-b4a9-0c1d2e3f4a5b"
GPU_02 = "c7f2e9b4-3a6d-4815-9e0c-5d4b3a2f1e0d"
LAB_01 = "2f6b9d0c-8e4a-4c71-a5d3-7e8f9a0b1c2d"
LAB_02 = "f1a3c5e7-9b0d-4e2f-8a6c-4b5d6e7f8091"

_THREE_DAYS = 3 * 86400.0


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A server at the start.

    Attributes:
        remark: on its role, for the reader.
        options: further arguments of `Simulator.add_server`.
        kept: whether it has an `autostop-keep-until` of tomorrow.
    """

    id: str
    name: str
    remark: str
    vm_state: str = "active"
    options: Mapping[str, Any] = field(default_factory=dict)
    kept: bool = False


_CI = {"tags": ["env=ci"], "metadata": {"team": "build"}}
_ML = {"tags": ["env=ml"], "metadata": {"team": "ml"}}
_PROD = {"tags": ["env=prod"]}
_LAB = {"tags": ["env=lab"]}
FLEET = (
    DemoServer(CI_07, "ci-07", "env=ci", options=_CI),
    DemoServer(CI_08, "ci-08", "env=ci; in error", "error", _CI),
    DemoServer(CI_09, "ci-09", "env=ci; stopped", "stopped", _CI),
    DemoServer(CI_10, "ci-10", "env=ci", options=_CI),
    DemoServer(CI_11, "ci-11", "env=ci; kept until tomorrow", options=_CI, kept=True),
    DemoServer(DB_01, "db-01", "autostop=never", options={"tags": ["env=prod", "autostop=never"]}),
    DemoServer(DB_02, "db-02", "locked", options={**_PROD, "locked": True}),
    DemoServer(WEB_01, "web-01", "a virtual server", options={**_PROD, "flavor": "s3.medium.2"}),
    DemoServer(GPU_01, "gpu-01", "env=ml", options=_ML),
    DemoServer(GPU_02, "gpu-02", "env=ml", options=_ML),
    DemoServer(LAB_01, "lab-01", "env=lab; paused", "paused", _LAB),
    DemoServer(LAB_02, "lab-02", "env=lab; never launched", "error", {**_LAB, "launched": False, "host": False}),
)


def add(cloud: Simulator, server: DemoServer) -> None:
    """Add a server to a simulated cloud; it last changed three days ago."""
    options = dict(server.options)
    if server.kept:
        until = rfc3339.render(datetime.now(UTC) + timedelta(days=1))
        options["metadata"] = {**options["metadata"], "autostop-keep-until": until}
    updated = time.time() - _THREE_DAYS
    cloud.add_server(server.name, id=server.id, vm_state=server.vm_state, updated=updated, **options)

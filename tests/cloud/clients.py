"""Login, HTTP and Nova of one process, set up as a service does it, with a fake clock."""

from __future__ import annotations

from handler.cloud.connect import Clouds
from handler.cloud.nova import NovaCloud
from handler.settings import stop_servers as stop_settings
from handler.simulator import Simulator
from tests.support.clock import FakeClock


class Client:
    """Login, HTTP and Nova of one process.

    Args:
        environ: settings beside, or in place of, those that log in to `cloud`; empty ones count as unset.
    """

    def __init__(self, cloud: Simulator, **environ: str) -> None:
        self.cloud = cloud
        self.clock = FakeClock()
        self.settings = stop_settings.from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ(), **environ})
        self.clouds = Clouds(self.settings, self.clock)
        self.http = self.clouds.http
        self.login, self.endpoint = self.clouds.login, self.clouds.endpoint
        self.nova = NovaCloud(self.http, self.endpoint)

    def close(self) -> None:
        """Close the connections."""
        self.clouds.client.close()

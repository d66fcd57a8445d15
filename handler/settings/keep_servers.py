"""The settings of `keep_servers`. It always calls Nova, so it does not read `AUTOSTOP_API`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from handler.keep.model import KeepPolicy
from handler.settings import declared
from handler.settings.common import (
    CLOCK_TOLERANCE,
    DEADLINE,
    DRY_RUN,
    LOG_LEVEL,
    MAX_BODY,
    MAX_KEEP,
    SOURCE,
    Callers,
    SinkSettings,
    read_callers,
    read_extensions,
    read_sink,
)
from handler.settings.env import Env
from handler.settings.login import CloudLogin, read_login
from handler.settings.stop_servers import (
    COMPUTE_URL,
    CONCURRENCY,
    MAX_EVENT_AGE,
    MAX_SERVERS,
    MOST_IN_MESSAGE,
    PROTECT,
    SMN_URL,
    ApiName,
    results_to,
)
from handler.stop.model import Policy


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """The settings of `keep_servers`, checked.

    Attributes:
        policy: what may be kept, and how long.
        callers, login, compute_url, smn_url, deadline, concurrency, max_body, source, sink, result_topic, extensions,
            log_level: as `handler.settings.stop_servers.Settings` has them.
    """

    callers: Callers
    login: CloudLogin
    policy: KeepPolicy
    compute_url: str | None
    smn_url: str | None
    deadline: timedelta
    concurrency: int
    max_body: int
    source: str
    sink: SinkSettings | None
    result_topic: str | None
    extensions: Mapping[str, str]
    log_level: str

    @property
    def api(self) -> ApiName:
        """Nova: metadata is read and written there in every mode."""
        return ApiName.NOVA

    @property
    def bms_url(self) -> str | None:
        """None, since BMS v1 is not called."""
        return None


def from_environ(environ: Mapping[str, str]) -> KeepSettings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every violation there is.
    """
    env = Env(environ)
    limits = Policy(
        protect=env.value(PROTECT),
        dry_run=env.value(DRY_RUN),
        max_servers=env.value(MAX_SERVERS),
        max_event_age=env.value(MAX_EVENT_AGE),
        clock_tolerance=env.value(CLOCK_TOLERANCE),
    )
    url, topic = results_to(env)
    if topic and limits.max_servers > MOST_IN_MESSAGE:
        env.note(MAX_SERVERS, f"must be at most {MOST_IN_MESSAGE} with an SMN topic as the sink: no message holds more")
    sink = read_sink(env, url or "")
    settings = KeepSettings(
        callers=read_callers(env),
        login=read_login(env, url_is_set=bool(env.text(COMPUTE_URL))),
        policy=KeepPolicy(limits, env.value(MAX_KEEP)),
        compute_url=env.optional(COMPUTE_URL),
        smn_url=env.optional(SMN_URL),
        deadline=env.value(DEADLINE),
        concurrency=env.value(CONCURRENCY),
        max_body=env.value(MAX_BODY),
        source=env.value(SOURCE),
        sink=sink if url else None,
        result_topic=topic,
        extensions=read_extensions(env),
        log_level=env.value(LOG_LEVEL),
    )
    env.finish(declared)
    return settings

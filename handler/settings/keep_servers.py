"""The settings of `keep_servers`. It always calls Nova, so it does not read `AUTOSTOP_API`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from handler.keep.model import KeepPolicy
from handler.settings import common, declared
from handler.settings.common import Callers, SinkSettings
from handler.settings.env import Env
from handler.settings.login import CloudLogin, read_login
from handler.settings.stop_servers import (
    COMPUTE_URL,
    CONCURRENCY,
    MAX_EVENT_AGE,
    MAX_SERVERS,
    PROTECT,
    SMN_URL,
    ApiName,
    read_results,
)
from handler.stop.model import Policy


class KeepSettings(NamedTuple):
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
    # Metadata is read and written through Nova in every mode.
    api: ApiName = ApiName.NOVA
    bms_url: None = None


def from_environ(environ: Mapping[str, str]) -> KeepSettings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every violation.
    """
    env = Env(environ)
    limits = Policy(
        protect=env.value(PROTECT),
        dry_run=env.value(common.DRY_RUN),
        max_servers=env.value(MAX_SERVERS),
        max_event_age=env.value(MAX_EVENT_AGE),
        clock_tolerance=env.value(common.CLOCK_TOLERANCE),
    )
    sink, topic = read_results(env, limits.max_servers)
    settings = KeepSettings(
        callers=common.read_callers(env),
        login=read_login(env, url_is_set=bool(env.text(COMPUTE_URL))),
        policy=KeepPolicy(limits, env.value(common.MAX_KEEP)),
        compute_url=env.optional(COMPUTE_URL),
        smn_url=env.optional(SMN_URL),
        deadline=env.value(common.DEADLINE),
        concurrency=env.value(CONCURRENCY),
        max_body=env.value(common.MAX_BODY),
        source=env.value(common.SOURCE),
        sink=sink,
        result_topic=topic,
        extensions=common.read_extensions(env),
        log_level=env.value(common.LOG_LEVEL),
    )
    env.finish(declared)
    return settings

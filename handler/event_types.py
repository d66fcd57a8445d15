"""Types of CloudEvents that are sent or accepted."""

from __future__ import annotations

PREFIX = "io.github.bms-autostop."
STOP_REQUESTED = f"{PREFIX}stop.requested.v1"
STOP_COMPLETED = f"{PREFIX}stop.completed.v1"
STOP_FAILED = f"{PREFIX}stop.failed.v1"
STOP_REFUSED = f"{PREFIX}stop.refused.v1"
STOP_PLANNED = f"{PREFIX}stop.planned.v1"
STOP_APPROVED = f"{PREFIX}stop.approved.v1"
STOP_ANNOUNCED = f"{PREFIX}stop.announced.v1"
KEEP_REQUESTED = f"{PREFIX}keep.requested.v1"
KEEP_COMPLETED = f"{PREFIX}keep.completed.v1"
KEEP_FAILED = f"{PREFIX}keep.failed.v1"
RESULTS = frozenset({STOP_COMPLETED, STOP_FAILED, STOP_REFUSED, STOP_PLANNED})
KEEP_RESULTS = frozenset({KEEP_COMPLETED, KEEP_FAILED})

# Knative's PingSource.
PING = "dev.knative.sources.ping"
# Google's Pub/Sub, by Eventarc.
MESSAGE_PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
# Types that are known without a setting.
KNOWN = (
    RESULTS | KEEP_RESULTS | {STOP_ANNOUNCED, STOP_REQUESTED, STOP_APPROVED, KEEP_REQUESTED, PING, MESSAGE_PUBLISHED}
)
# Cloud Eye through Huawei's EventGrid: prefix, namespace of the service, a dash, and the name of the event.
CLOUD_EYE_PREFIX = "CES:Event:"

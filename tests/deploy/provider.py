"""The arguments of the Terraform provider's resources that deploy/ uses, from the provider's documents.

`terraform validate` needs the provider itself, which cannot be had everywhere; this is what is checked in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    """Any text, or an expression."""
    return isinstance(value, str)


def number(low: int, high: int) -> Check:
    """A whole number within bounds, or an expression."""
    return lambda value: computed(value) or (isinstance(value, int) and low <= value <= high)


def one_of(*allowed: object) -> Check:
    """One of these, or an expression that yields nothing else."""
    return lambda value: (
        value in allowed or (computed(value) and all(part in allowed for part in re.findall(r'"([^"]*)"', value)))
    )


def matching(pattern: str) -> Check:
    """Text of this form, or an expression."""
    return lambda value: computed(value) or (isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def texts(value: Any) -> bool:
    """A list of texts, or an expression."""
    return computed(value) or (isinstance(value, list) and all(map(text, value)))


def switch(value: Any) -> bool:
    """True or false, or an expression."""
    return computed(value) or isinstance(value, bool)


def computed(value: Any) -> bool:
    """Whether it is an expression, which only Terraform can work out."""
    return isinstance(value, str) and "${" in value


@dataclass(frozen=True, slots=True)
class Kind:
    """The arguments of a resource or block.

    Attributes:
        required, optional: a check for each value.
        blocks: nested ones.
    """

    required: Mapping[str, Check] = field(default_factory=dict)
    optional: Mapping[str, Check] = field(default_factory=dict)
    blocks: Mapping[str, Kind] = field(default_factory=dict)

    def errors(self, body: Mapping[str, Any], where: str) -> Iterator[str]:
        """Say what is wrong."""
        checks = {**self.required, **self.optional}
        for missing in self.required.keys() - body.keys():
            yield f"{where}: {missing} is missing"
        for name, value in body.items():
            if name in self.blocks:
                for block in value:
                    yield from self.blocks[name].errors(block, f"{where}.{name}")
            elif name not in checks:
                yield f"{where}: {name} is not an argument"
            elif not checks[name](value):
                yield f"{where}: {name} cannot be {value!r}"


_LOG = ("log_group_id", "log_group_name", "log_topic_id", "log_topic_name")
_DESTINATION = Kind({"destination": one_of("OBS", "SMN", "FunctionGraph"), "param": text})
_MEMORY = (128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096)

KINDS: Mapping[str, Kind] = {
    "opentelekomcloud_fgs_function_v2": Kind(
        {
            "name": matching(r"[A-Za-z][A-Za-z0-9_-]{0,58}[A-Za-z0-9]"),
            "app": one_of("default"),
            "runtime": one_of("Python3.9", "Python3.10", "Python3.12", "Custom Image", "http"),
            "memory_size": one_of(*_MEMORY),
            "timeout": number(3, 900),
            "handler": text,
        },
        {
            "code_type": one_of("inline", "zip", "obs", "jar", "Custom-Image-Swr"),
            "code_filename": text,
            "code_url": text,
            "func_code": text,
            "source_code_hash": text,
            "depend_list": texts,
            "user_data": text,
            "encrypted_user_data": text,
            "agency": text,
            "app_agency": text,
            "enable_auth_in_header": switch,
            "initializer_handler": text,
            "initializer_timeout": number(1, 300),
            "pre_stop_handler": text,
            "pre_stop_timeout": number(1, 90),
            "max_instance_num": matching(r"-1|\d+"),
            "concurrency_num": number(1, 1000),
            "vpc_id": text,
            "network_id": text,
            "tags": text,
            **dict.fromkeys(_LOG, text),
        },
        {"custom_image": Kind({"url": matching(r"swr\..+")}, {"command": text, "args": text, "working_dir": text})},
    ),
    "opentelekomcloud_fgs_trigger_v2": Kind(
        {
            "function_urn": text,
            "type": one_of("TIMER", "SMN", "CTS", "OBS", "LTS", "DEDICATEDGATEWAY", "KAFKA", "DDS"),
            "event_data": text,
        },
        {"status": one_of("ACTIVE", "DISABLED")},
    ),
    "opentelekomcloud_fgs_async_invoke_config_v2": Kind(
        {
            "function_urn": text,
            "max_async_retry_attempts": number(0, 3),
            "max_async_event_age_in_seconds": number(60, 86400),
        },
        blocks={"on_failure": _DESTINATION, "on_success": _DESTINATION},
    ),
    "opentelekomcloud_identity_role_v3": Kind(
        {
            "display_name": text,
            "description": matching(r".{1,256}"),
            "display_layer": one_of("project", "domain"),
        },
        blocks={
            "statement": Kind(
                {"effect": one_of("Allow", "Deny"), "action": texts}, {"resource": texts, "condition": text}
            )
        },
    ),
    "opentelekomcloud_identity_agency_v3": Kind(
        {"name": text, "delegated_domain_name": text},
        {"description": text, "domain_roles": texts},
        {"project_role": Kind({"roles": texts}, {"project": text, "all_projects": switch})},
    ),
    "opentelekomcloud_lts_group_v2": Kind({"group_name": text, "ttl_in_days": number(1, 365)}, {"tags": text}),
    "opentelekomcloud_lts_stream_v2": Kind(
        {"group_id": text, "stream_name": text}, {"ttl_in_days": number(-1, 365), "tags": text}
    ),
    "opentelekomcloud_smn_topic_v2": Kind({"name": text}, {"display_name": text, "tags": text, "project_name": text}),
    "opentelekomcloud_smn_subscription_v2": Kind(
        {"topic_urn": text, "endpoint": text, "protocol": one_of("http", "https", "email", "sms")},
        {"remark": matching(r".{0,128}"), "project_name": text},
    ),
}

PROVIDER = Kind(
    {"auth_url": text, "tenant_name": text, "domain_name": text},
    dict.fromkeys(("region", "cloud", "max_retries", "allow_reauth", "cacert_file", "agency_name"), text),
)

# What any resource may have beside its own.
COMMON = {"depends_on", "lifecycle", "count", "for_each", "provider"}

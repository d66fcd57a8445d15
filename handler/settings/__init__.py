"""The environment as frozen objects, read once at the start: one module for each target, and what several share.

Each setting is declared once, as an `env.Setting` in a module of this package. `from_environ` of the targets, the check
for unknown names and `deploy/settings.md` come from these declarations.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from handler.settings.env import Setting

TARGETS = ("stop_servers", "receive_webhook", "notify_chat", "keep_servers")
"""The functions-framework targets, each with a module of its name here."""

# The modules that declare settings, each with the targets that read them if a declaration names no others.
_MODULES = {
    "common": TARGETS,
    "oidc": ("stop_servers", "notify_chat", "keep_servers"),
    "chat": ("receive_webhook", "notify_chat"),
    **{target: (target,) for target in TARGETS},
    "login": ("stop_servers", "keep_servers"),
}


def declared() -> tuple[Setting[Any], ...]:
    """List the settings of all targets, module by module, each with the targets that read it.

    The modules are loaded by their names, when they are asked for: a target starts without those of the others.
    """
    found: dict[str, Setting[Any]] = {}
    for name, targets in _MODULES.items():
        for value in vars(import_module(f"{__name__}.{name}")).values():
            # A module has what it imports as well; the one that declares it is first.
            if isinstance(value, Setting) and value.name not in found:
                found[value.name] = value if value.targets else value._replace(targets=targets)
    return tuple(found.values())

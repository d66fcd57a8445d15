"""The entry of Open Telekom Cloud's FunctionGraph for a function that is uploaded as code: wiring, no logic.

The zip's `index.py` imports both functions; `index.handler` is the handler string to configure, and `index.initializer`
the initializer, which reports wrong settings early.

An exception ends in the function's failure destination, after as many attempts as are configured: `NotHandled` if
sending the event again can help, `NeverPossible` if it cannot, `SettingsError` if the settings are wrong. The platform
handles all of them alike. A useless repeat costs nothing, and an error that was only returned would count as success:
the event would be lost.
"""

from __future__ import annotations

import os
import time

from handler.functiongraph.context import Call, UserData
from handler.functiongraph.invocation import invoke
from handler.outbound import logs
from handler.services.stop_servers import SharedResources
from handler.settings.stop_servers import from_environ

_SHARED: list[SharedResources] = []


def initializer(context: object) -> None:
    """Read the settings before the first event.

    Raises:
        SettingsError: with every violation.
    """
    _shared(context)


def handler(event: object, context: object) -> object:
    """Handle one event of a trigger.

    Returns:
        The result event in the JSON format; see `handler.functiongraph.invocation.invoke`.

    Raises:
        NotHandled, NeverPossible, SettingsError: see above.
    """
    received = time.monotonic()
    return invoke(_shared(context), event, Call.of_context(context, os.environ), received)


def _shared(context: object) -> SharedResources:
    """Return what all calls of this process share; its settings are read at the first and do not change."""
    if not _SHARED:
        found = from_environ(UserData(context, os.environ))
        logs.configure(found.log_level)
        _SHARED.append(SharedResources(found))
        _SHARED[0].log_started()
    return _SHARED[0]

"""`python -m tests.inbound.webhooks NAME ...` writes status and event into samples of events/samples/webhooks/.

Read the difference: the test of the samples cannot find what is wrong in an event that was written here.
"""

from __future__ import annotations

import json
import sys

from tests.inbound.webhooks.authentication import GOLDEN, NAMES, result_of


def write(name: str) -> None:
    """Send the sample, and write the result.

    Args:
        name: of its file, without `.json`.
    """
    pair = json.loads((GOLDEN / f"{name}.json").read_text())
    answer, events = result_of(pair)
    pair["status"], pair["event"] = answer.status, events[0] if events else None
    (GOLDEN / f"{name}.json").write_text(json.dumps(pair, indent=1, ensure_ascii=False) + "\n")
    print(f"{name}: status {answer.status}, {'an event' if events else 'no event'}")
    if answer.status >= 400:
        print(answer.body.decode())


if __name__ == "__main__":
    unknown = sorted(set(sys.argv[1:]) - set(NAMES))
    if unknown or not sys.argv[1:]:
        sys.exit(f"Must be samples of events/samples/webhooks/, without .json: {', '.join(unknown) or 'none is named'}")
    for sample in sys.argv[1:]:
        write(sample)

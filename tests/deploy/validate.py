"""`python -m tests.deploy.validate`, a part of `make check`: what is wrong with the manifests of Knative."""

from __future__ import annotations

import sys

from tests.deploy import kustomize
from tests.deploy.rules import rule_faults
from tests.deploy.schemas import schema_faults
from tests.deploy.stage import OVERLAYS


def main() -> int:
    """Print the faults; the exit code says whether there are any."""
    faults = [
        f"{overlay.name}: {fault}"
        for overlay in OVERLAYS
        for document in kustomize.render(overlay)
        for fault in schema_faults(document) + rule_faults(document)
    ]
    print("\n".join(faults) if faults else f"The manifests of {len(OVERLAYS)} overlays are valid.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""`make audit`: look up every locked version in the Python advisory database, and name what could not be looked up.

pip-audit asks PyPI's JSON API, which answers 404 for a version that it does not know. So does a package mirror that has
packages but no advisories, and pip-audit then stops at the first one or, without `--strict`, finds "no known
vulnerabilities". Here each lock is looked up to its end, and it counts as audited only if all of it was.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.process import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock", "requirements-tools.lock")
_OPTIONS = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of the look-up of one lock; each version as `name version`.

    Attributes:
        clean: looked up, with no known vulnerability.
        vulnerable: with the ids of the advisories.
        unknown: the database did not answer for them.
        elsewhere: locked for another platform or version of Python, so that they are not looked up here.
    """

    clean: list[str] = field(default_factory=list)
    vulnerable: dict[str, list[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether each version was looked up that can be installed here, and none is vulnerable."""
        return bool(self.clean) and not self.vulnerable and not self.unknown

    def lines(self) -> list[str]:
        """Return the report, line by line."""
        found = len(self.clean) + len(self.vulnerable)
        lines = [f"{found} of {found + len(self.unknown)} versions looked up, {len(self.vulnerable)} vulnerable"]
        lines += [f"    {version}: {', '.join(ids)}" for version, ids in self.vulnerable.items()]
        if self.unknown:
            lines.append(f"    not looked up, since the database does not answer for them: {_few(self.unknown)}")
        if self.elsewhere:
            lines.append(f"    not looked up, since they are for another platform or Python: {_few(self.elsewhere)}")
        return lines


def audit_of(lock: str, document: Mapping[str, Any]) -> Audit:
    """Compare pip-audit's report, in its JSON format, with the text of a lock file."""
    audit, left = Audit(), {_canonical(name): version for name, version in _LOCKED.findall(lock)}
    for dependency in document["dependencies"]:
        name = _canonical(dependency["name"])
        version = f"{name} {left.pop(name, '(not in the lock)')}"
        if "skip_reason" in dependency:
            audit.unknown.append(version)
        elif dependency["vulns"]:
            audit.vulnerable[version] = [one["id"] for one in dependency["vulns"]]
        else:
            audit.clean.append(version)
    audit.elsewhere.extend(f"{name} {version}" for name, version in left.items())
    return audit


def main() -> int:
    """Audit every lock; the exit code is 1 if a version is vulnerable or could not be looked up."""
    audits = []
    for lock in LOCKS:
        command = [str(Path(sys.executable).with_name("pip-audit")), *_OPTIONS, "-r", str(ROOT / lock)]
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            audit = audit_of((ROOT / lock).read_text(), json.loads(done.stdout))
        except ValueError:
            print(f"{lock}: pip-audit failed: {done.stderr.strip()[-500:]}")
            audit = Audit()
        else:
            print(f"{lock}: " + "\n".join(audit.lines()), flush=True)
        audits.append(audit)
    if not any(audit.clean or audit.vulnerable for audit in audits):
        print(
            "Nothing was audited: the advisory database cannot be reached "
            "from here, as behind a package mirror that does not have it. Run `make audit` where it can be reached."
        )
    return 0 if all(audit.passed for audit in audits) else 1


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _few(versions: list[str]) -> str:
    more = len(versions) - _MOST_NAMED
    return ", ".join(versions[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


if __name__ == "__main__":
    sys.exit(main())

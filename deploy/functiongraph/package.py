"""Pack the zip for FunctionGraph's Python 3.12: our code, its dependencies from the lock, and the bytecode of both.

The same input gives the same bytes: names are sorted, times and permissions fixed, and the bytecode names its source by
hash and by the platform's path. (Another version of zlib or of Python 3.12 may give other bytes for the same contents.)
`make functiongraph-zip` runs it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "dist" / "functiongraph.zip"
LIMIT = 40 * 2**20
"""Bytes that the console takes."""
PYTHON = "3.12"
CODE = "/opt/function/code"
"""Where the platform unpacks the zip."""
PLATFORM = "manylinux2014_x86_64"
EXTRAS = ("oidc",)
"""What a caller through API Gateway may want; tracing is packed when asked for."""

# Two serve HTTP, which the platform does here; the third is the command line. What only they need is left out too.
_NOT_HERE = {"functions-framework", "gunicorn", "click"}
# Parts of ours that no event reaches: commands, the simulated cloud, and the entry of functions-framework.
_NOT_OURS = ("cli/", "demo/", "main.py", "simulator/", "terminal.py")
_JUNK = re.compile(r"(^|/)(__pycache__|tests?)/|\.py[cio]$|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$")
_ENVIRONMENT = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{PYTHON}.0",
    "python_version": PYTHON,
    "sys_platform": "linux",
}
# Runs under the platform's Python: bytecode beside each source, in a fixed order. The hash of the source is written
# into it and not checked at run time, since the files do not change and their times carry no information.
_COMPILE = """
import importlib.util, os, py_compile, sys
os.chdir(sys.argv[1])
for name in sorted(os.path.join(at, file)[2:] for at, _, files in os.walk(".") for file in files):
    target = importlib.util.cache_from_source(name)
    try:
        py_compile.compile(
            name, target, sys.argv[2] + "/" + name, doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except py_compile.PyCompileError:
        continue  # Code for another version of Python, which a dependency has and does not import here.
    print(target)
"""
_INDEX = '''"""`index.handler` for the platform. The dependencies beside this file go before those of the platform."""

import gc
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# Modules are not garbage: looking through them again and again is a sixth of the time to the first event.
gc.disable()
try:
    from handler.functiongraph import handler, initializer
finally:
    gc.enable()
gc.freeze()

__all__ = ["handler", "initializer"]
'''


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution by its normalized name: what it requires, and the contents of its files by path."""

    name: str
    requires: tuple[Requirement, ...]
    files: Mapping[str, bytes]


def wheel(path: Path) -> Distribution:
    """Read a wheel.

    Raises:
        ValueError: it brings files that only an installer puts into place.
    """
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    (metadata,) = (text for name, text in files.items() if name.endswith(".dist-info/METADATA"))
    fields = HeaderParser().parsestr(metadata.decode())
    odd = [name for name in files if re.match(r"[^/]+\.data/(purelib|platlib)/", name)]
    if odd:
        raise ValueError(f"{path.name}: {odd[0]} must be installed, not unpacked")
    kept = {name: text for name, text in files.items() if not re.match(r"[^/]+\.data/", name)}
    return Distribution(
        canonicalize_name(fields["Name"]), tuple(map(Requirement, fields.get_all("Requires-Dist", []))), kept
    )


def roots(project: Path, extras: Collection[str]) -> list[Requirement]:
    """What our own code requires here."""
    about = tomllib.loads(project.read_text())["project"]
    lines = [*about["dependencies"], *(line for extra in extras for line in about["optional-dependencies"][extra])]
    return [wanted for wanted in map(Requirement, lines) if canonicalize_name(wanted.name) not in _NOT_HERE]


def needed(wanted: Iterable[Requirement], available: Iterable[Distribution]) -> list[Distribution]:
    """Choose what is wanted, and what that requires in turn, on the platform.

    Raises:
        ValueError: something is missing.
    """
    by_name = {each.name: each for each in available}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, extra) for requirement in wanted for extra in ("", *requirement.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if name not in by_name:
            raise ValueError(f"{name} is needed, and the lock has no wheel of it for this platform")
        for further in by_name[name].requires:
            if further.marker is None or further.marker.evaluate(_ENVIRONMENT | {"extra": extra}):
                waiting += [(further, each) for each in ("", *further.extras)]
    return [by_name[name] for name in sorted({name for name, _ in seen})]


def contents(distributions: Iterable[Distribution], package: Path) -> dict[str, bytes]:
    """Return everything that is packed but the bytecode, by path.

    Raises:
        ValueError: two parts bring the same file with different contents.
    """
    found: dict[str, bytes] = {"index.py": _INDEX.encode(), "LICENSE": (ROOT / "LICENSE").read_bytes()}
    parts = [part for each in distributions for part in each.files.items() if not _JUNK.search(part[0])]
    for path in package.rglob("*"):
        name = path.relative_to(package).as_posix()
        if path.is_file() and not _JUNK.search(name) and not name.startswith(_NOT_OURS):
            parts.append((f"{package.name}/{name}", path.read_bytes()))
    for name, text in parts:
        if found.setdefault(name, text) != text:
            raise ValueError(f"{name} comes twice, and differs")
    return found


def platform_python(named: str | None) -> str | None:
    """Return the command of a Python of the platform's version, if any: the named one, else this or `python3.12`."""
    show = "import sys; print('%d.%d' % sys.version_info[:2])"
    for command in [named] if named else [sys.executable, shutil.which(f"python{PYTHON}")]:
        if command is None:
            continue
        done = subprocess.run([command, "-c", show], capture_output=True, text=True, check=False)
        if done.stdout.strip() == PYTHON:
            return command
    return None


def bytecode(files: Mapping[str, bytes], python: str) -> dict[str, bytes]:
    """Compile the sources among `files` by the command `python`, and return the bytecode by path."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            if name.endswith(".py"):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)
        done = subprocess.run(
            [python, "-s", "-S", "-c", _COMPILE, folder, CODE],
            env={"PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
        return {name: Path(folder, name).read_bytes() for name in done.stdout.splitlines()}


def pack(files: Mapping[str, bytes], target: Path) -> str:
    """Write the archive and return the SHA-256 of its bytes.

    Raises:
        ValueError: it is larger than the platform takes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_suffix(".part")
    with zipfile.ZipFile(half, "w") as archive:
        for name in sorted(files):
            # The earliest time of the format. All users may read, since the platform's user is not the owner.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, 6)
    if half.stat().st_size > LIMIT:
        raise ValueError(f"{half.stat().st_size} bytes are more than the {LIMIT} that the console takes")
    half.rename(target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def fetch(lock: Path, folder: Path) -> None:
    """Have pip fetch the lock's wheels for the platform, and check their hashes."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", PYTHON, "--platform", PLATFORM, "-r", str(lock), "-d", str(folder)),
    ]
    subprocess.run(command, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--with", dest="extras", action="append", default=[], metavar="EXTRA", help="such as otel")
    parser.add_argument("--output", type=Path, default=TARGET)
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels of the lock, fetched before")
    parser.add_argument("--python", metavar="COMMAND", help=f"a Python {PYTHON}, which compiles the bytecode")
    chosen = parser.parse_args(arguments)
    python = platform_python(chosen.python)
    if python is None and chosen.python:
        parser.error(f"{chosen.python} must be a Python {PYTHON}")
    with tempfile.TemporaryDirectory() as folder:
        wheels = chosen.wheels or Path(folder)
        if chosen.wheels is None:
            fetch(ROOT / "requirements.lock", wheels)
        available = [wheel(path) for path in sorted(wheels.glob("*.whl"))]
    packed = needed(roots(ROOT / "pyproject.toml", (*EXTRAS, *chosen.extras)), available)
    files = contents(packed, ROOT / "handler")
    digest = pack(files if python is None else {**files, **bytecode(files, python)}, chosen.output)
    size = chosen.output.stat().st_size
    print(f"{chosen.output}: {size / 2**20:.1f} MiB of {LIMIT / 2**20:.0f}, sha256 {digest}")
    print(f"with {', '.join(each.name for each in packed)}")
    if python is None:
        print(f"without bytecode, so that a cold start takes longer: install Python {PYTHON} or name it with --python")
    return 0


if __name__ == "__main__":
    sys.exit(main())

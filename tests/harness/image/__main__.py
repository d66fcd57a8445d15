"""`make image-test`: build the image twice, compare, start it as a platform would, show what it costs.

It needs root, the Debian packages buildah and debootstrap, a gigabyte of disk and a few minutes. The base is a Debian
of our own making, since no registry is asked: with Debian's Python, or with the one that `--python` names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.harness.image.build import Builder, Image
from tests.support.process import ROOT

_UIDS = (65532, 1003)


def main() -> int:
    """Run it.

    Returns:
        0 if all is as it should be, 2 if it cannot run here.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.harness.image", description=__doc__)
    parser.add_argument("--suite", default="bookworm", help="which Debian the base is")
    parser.add_argument("--python", type=Path, metavar="PREFIX", help="a Python installation to put into the base")
    parser.add_argument("--zip", type=Path, help="a zip for FunctionGraph, to be called in the bare base")
    chosen = parser.parse_args()
    missing = [name for name in ("buildah", "debootstrap", "unshare", "ip") if not shutil.which(name)]
    if missing or os.geteuid():
        print("This needs root, and", ", ".join(missing) or "nothing else", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="image-") as work:
        builder = Builder(Path(work), ROOT / "build")
        print("base ...", flush=True)
        builder.base(chosen.suite, chosen.python)
        builder.wheels(chosen.python)
        try:
            print("first build ...", flush=True)
            first = builder.image()
            print("second build ...", flush=True)
            image = builder.image()
            _check_contents(image, first)
            zipped = builder.unpack(chosen.zip) if chosen.zip else None
            _start(image, zipped)
        finally:
            builder.close()
    return 0


def _check_contents(image: Image, first: Image) -> None:
    # Not the ids: buildah puts a random name of the building container into Docker's format.
    if image.layers != first.layers or replace(image, root=first.root) != first:
        raise SystemExit("two builds of the same differ")
    print(f"  the same twice: {image.layers[-1]} and those below it")
    loose = [
        path
        for top in ("app", "opt/venv", "opt/bytecode")
        for path in (image.root / top).rglob("*")
        if not path.is_symlink() and path.lstat().st_mode & 0o022
    ]
    if loose:
        raise SystemExit(f"others may write: {loose[:3]}")
    size = sum(path.lstat().st_size for path in (image.root / "opt").rglob("*")) / 2**20
    bare = [path.name for path in (image.root / "opt/venv/lib").glob("python3.*/site-packages/*") if path.stem == "pip"]
    if bare or image.user != "65532:65532" or not any((image.root / "opt/bytecode").rglob("*.pyc")):
        raise SystemExit(f"not as it should be: pip {bare}, user {image.user}, or no bytecode")
    print(f"  {size:.0f} MiB over the base; runs as {image.user}; labels: {', '.join(sorted(image.labels))}")


def _start(image: Image, zipped: Path | None) -> None:
    reported = {
        "root": str(image.root),
        "uids": _UIDS,
        "environ": image.environ,
        "command": image.command,
        "health": image.health,
        "folder": image.folder,
        "zip": zipped and str(zipped),
    }
    print("start, with a read-only root and no network but loopback ...", flush=True)
    subprocess.run(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-m", "tests.harness.image.checks"),
        ],
        input=json.dumps(reported),
        text=True,
        check=True,
        cwd=ROOT,
    )


if __name__ == "__main__":
    sys.exit(main())

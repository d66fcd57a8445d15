"""Build the image of deploy/Dockerfile with buildah, on a base made here, without any network inside the build."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import ROOT

_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_LOCKS = ("requirements.lock", "requirements-build.lock")
# Debian has no `python`, which the image's own base has.
_BASE = "FROM scratch\nADD rootfs.tar /\nRUN ln -s python3 /usr/bin/python\n"
_OWN = "FROM scratch\nADD rootfs.tar /\nCOPY python /usr/local\nRUN ldconfig && ln -sf python3 /usr/local/bin/python\n"


@dataclass(frozen=True, slots=True)
class Image:
    """What was built.

    Attributes:
        health: the health check's command.
    """

    layers: list[str]
    root: Path
    environ: dict[str, str]
    command: list[str]
    user: str
    folder: str
    health: list[str]
    labels: frozenset[str]


class Builder:
    """Buildah with a store of its own, which goes with its folder.

    Args:
        work: an empty folder with a gigabyte of room.
        cache: where the base is kept for the next time.
    """

    def __init__(self, work: Path, cache: Path) -> None:
        self._work = work
        self._cache = cache
        self._buildah = [
            *("buildah", "--root", str(work / "store"), "--runroot", str(work / "run"), "--storage-driver", "overlay")
        ]

    def base(self, suite: str, python: Path | None) -> None:
        """Make the base: a minimal Debian with its own Python, or with a copy of `python` (a prefix)."""
        tar = self._cache / f"base-{suite}.tar"
        if not tar.exists():
            tree = self._work / "base"
            _run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(tree)], quiet=True)
            self._cache.mkdir(parents=True, exist_ok=True)
            half = tar.with_suffix(".part")
            _run(["tar", "-C", str(tree), "--exclude=./proc/*", "--exclude=./sys/*", "-cf", str(half), "."])
            half.rename(tar)
        context = self._work / "context"
        context.mkdir()
        shutil.copy(tar, context / "rootfs.tar")
        (context / "Dockerfile").write_text(_OWN if python else _BASE)
        if python:
            shutil.copytree(python, context / "python", symlinks=True, ignore=shutil.ignore_patterns("test", "tests"))
        # With the files' own times: else Python would take its library's bytecode for outdated.
        self._build("localhost/base", context / "Dockerfile", context)

    def wheels(self, python: Path | None) -> None:
        """Fetch what the locks name, as the base's Python wants it; the build itself then has no index."""
        interpreter = str(python / "bin" / "python3") if python else sys.executable
        for lock in _LOCKS:
            _run(
                [
                    *(interpreter, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
                    *("--only-binary=:all:", "--disable-pip-version-check", "-r", str(ROOT / lock)),
                    *("-d", str(self._work / "wheels")),
                ],
                quiet=True,
            )
        (self._work / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")

    def image(self) -> Image:
        self._build(
            "localhost/bms-autostop",
            ROOT / "deploy" / "Dockerfile",
            ROOT,
            *("--timestamp", "0", "--no-cache", "--format", "docker", "--build-arg", "PYTHON_IMAGE=localhost/base"),
            *("--volume", f"{self._work / 'wheels'}:/wheels:ro"),
            *("--volume", f"{self._work / 'pip.conf'}:/etc/pip.conf:ro"),
        )

        reported = json.loads(_run([*self._buildah, "inspect", "--type", "image", "localhost/bms-autostop"]))
        config = reported["Docker"]["config"]
        return Image(
            layers=reported["Docker"]["rootfs"]["diff_ids"],
            root=self._mount("localhost/bms-autostop"),
            environ=dict(entry.split("=", 1) for entry in config["Env"]),
            command=config["Cmd"],
            user=config["User"],
            folder=config["WorkingDir"],
            health=config["Healthcheck"]["Test"][1:],
            labels=frozenset(config["Labels"]),
        )

    def unpack(self, archive: Path) -> Path:
        """Put a zip where FunctionGraph does, on the bare base, and mount that."""
        root = self._mount("localhost/base")
        with zipfile.ZipFile(archive) as files:
            files.extractall(root / "opt" / "function" / "code")
        return root

    def close(self) -> None:
        _run([*self._buildah, "umount", "--all"])

    def _mount(self, name: str) -> Path:
        container = _run([*self._buildah, "from", "--pull-never", name]).strip()
        return Path(_run([*self._buildah, "mount", container]).strip())

    def _build(self, name: str, file: Path, context: Path, *options: str) -> None:
        _run(
            [
                *(*self._buildah, "build", "--isolation", "chroot", *options),
                *("-t", name, "-f", str(file), str(context)),
            ],
            quiet=True,
        )


def _run(command: Sequence[str], *, quiet: bool = False) -> str:
    """Run a command and return its output; errors are shown, and the rest unless `quiet`."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None)
    if done.returncode:
        print(done.stdout[-3000:], (done.stderr or "")[-3000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"{command[0]} ended with {done.returncode}")
    return done.stdout

"""The zip for FunctionGraph: the same bytes each time, nothing too much, and it runs where nothing else is.

Here it is packed from what is installed, for the Python that runs the tests. `make functiongraph-zip` packs the wheels
for the platform's Python 3.12, and `make image-test` calls that one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.functiongraph import package
from deploy.functiongraph.package import Distribution
from handler.simulator import Simulator
from tests.conftest import ROOT
from tests.deploy.platform import call, installed, timer


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """What is packed, by path; the bytecode is that of the Python that runs the tests."""
    wanted = package.roots(ROOT / "pyproject.toml", package.EXTRAS)
    sources = package.contents(package.needed(wanted, installed(ROOT / "requirements.lock")), ROOT / "handler")
    return {**sources, **package.bytecode(sources, sys.executable)}


@pytest.fixture(scope="module")
def unpacked(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip, unpacked as the platform does."""
    folder = tmp_path_factory.mktemp("function")
    package.pack(files, folder / "code.zip")
    with zipfile.ZipFile(folder / "code.zip") as archive:
        archive.extractall(folder / "code")
    return folder / "code"


# --- it runs


@pytest.mark.parametrize("on_path", [True, False], ids=["root on the path", "root not on the path"])
def test_zip_stops_a_server_where_nothing_else_is(unpacked: Path, on_path: bool) -> None:
    """In a Python with nothing but its standard library the agency's token stops the server."""
    with Simulator.otc() as cloud:
        server = cloud.add_server("db-1")
        called = call(
            str(unpacked),
            "index.handler",
            [timer(server)],
            on_path=on_path,
            user_data={
                "AUTOSTOP_INBOUND_AUTH": "none",
                "OS_AUTH_URL": cloud.auth_url,
                "OS_REGION_NAME": "eu-de",
                "AUTOSTOP_COMPUTE_URL": f"{cloud.url}/v2.1/{cloud.project_id}",
            },
            token=cloud.token(),
            project=cloud.project_id,
        )
        assert cloud.server(server).vm_state == "stopped"
    (result,) = called.results
    assert result["type"] == "io.github.bms-autostop.stop.completed.v1"
    assert [(row["id"], row["outcome"]) for row in result["data"]["servers"]] == [(server, "stopped")]
    assert called.foreign == []
    assert called.collects


# --- the same bytes


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the order in which the files are found, and whenever it is."""
    one = package.pack({"b.py": b"b", "a/c.py": b"c"}, tmp_path / "one.zip")
    os.utime(tmp_path / "one.zip", (0, 0))
    other = package.pack({"a/c.py": b"c", "b.py": b"b"}, tmp_path / "other.zip")
    assert one == other
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()
    assert package.pack({"a/c.py": b"c", "b.py": b"B"}, tmp_path / "third.zip") != one


def test_every_user_may_read_every_file_and_all_have_one_time(tmp_path: Path) -> None:
    """The platform's user is not the one that packed."""
    package.pack({"index.py": b"", "a/b.so": b""}, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == ["a/b.so", "index.py"]
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_every_source_has_bytecode_that_is_loaded_as_it_is(files: dict[str, bytes]) -> None:
    """Named for the platform's path, with the hash of its source, which is not checked at run time."""
    for name in ("index.py", "handler/functiongraph/__init__.py", "requests/__init__.py"):
        compiled = files[importlib.util.cache_from_source(name)]
        assert compiled[:4] == importlib.util.MAGIC_NUMBER
        # PEP 552: bit 0 says that a hash follows, bit 1 that it is checked.
        assert int.from_bytes(compiled[4:8], "little") == 0b01
        assert compiled[8:16] == importlib.util.source_hash(files[name])
        assert f"/opt/function/code/{name}".encode() in compiled


def test_same_sources_give_the_same_bytecode() -> None:
    """In whatever order they come; what cannot be compiled is packed as a source only."""
    sources = {"a.py": b"x = {'one', 'two', 'three'}\n", "b/c.py": b"def f(): return frozenset('abc')\n", "d.txt": b""}
    first = package.bytecode({**sources, "old.py": b"print 1\n"}, sys.executable)
    assert set(first) == {importlib.util.cache_from_source(name) for name in ("a.py", "b/c.py")}
    assert package.bytecode(dict(reversed(sources.items())), sys.executable) == first


def test_python_of_another_version_compiles_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its bytecode would not be loaded."""
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.9\n")
    other.chmod(0o755)
    assert package.platform_python(str(other)) is None
    with pytest.raises(SystemExit):
        package.main(["--python", str(other)])
    assert "must be a Python 3.12" in capsys.readouterr().err


# --- nothing too much, nothing too little


def test_zip_has_what_an_event_can_reach_and_nothing_else(files: dict[str, bytes]) -> None:
    """No tests, no commands, no simulated cloud, no HTTP framework, no tracing; what a setting asks for is there."""
    tops = {name.partition("/")[0] for name in files}
    unwanted = {"flask", "werkzeug", "gunicorn", "functions_framework", "opentelemetry", "uvicorn", "google"}
    assert tops.isdisjoint(unwanted)
    ours = ("handler/simulator", "handler/cli", "handler/main")
    assert not [name for name in files if "/tests/" in name or name.startswith(ours)]
    assert {"index.py", "handler/__init__.py", "handler/services/stop_servers.py"} <= set(files)
    assert {"jmespath/__init__.py", "jwt/__init__.py", "cryptography/__init__.py", "certifi/cacert.pem"} <= set(files)


def test_licences_go_along(files: dict[str, bytes]) -> None:
    """Ours, and those of every dependency: the zip may be passed on."""
    assert files["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    folders = {name.partition("/")[0] for name in files if ".dist-info/" in name}
    with_terms = {name.partition("/")[0] for name in files if "LICEN" in name.upper() or "COPYING" in name.upper()}
    assert folders <= with_terms


def _distribution(name: str, *requires: str, **files: str) -> Distribution:
    return Distribution(name, tuple(map(Requirement, requires)), {k: v.encode() for k, v in files.items()})


def test_requirements_are_followed_as_the_platform_would() -> None:
    """By way of extras, and with the markers of the platform's Python and system, not of the one that packs."""
    available = [
        _distribution("a", "b[fast]", "old; python_version < '3.12'", "win; sys_platform == 'win32'"),
        _distribution("b", "c; extra == 'fast'", "d; extra == 'slow'", "a"),
        *(_distribution(name) for name in ("c", "d", "old", "win", "other")),
    ]
    assert [each.name for each in package.needed([Requirement("a")], available)] == ["a", "b", "c"]


def test_missing_requirements_and_two_files_of_one_name_are_reported(tmp_path: Path) -> None:
    """A zip that lacks something is not packed, and none in which a file would hide another."""
    with pytest.raises(ValueError, match="b is needed"):
        package.needed([Requirement("a")], [_distribution("a", "b")])
    (tmp_path / "handler").mkdir()
    same = [_distribution("a", **{"x.py": "1"}), _distribution("b", **{"x.py": "1"})]
    assert package.contents(same, tmp_path / "handler")["x.py"] == b"1"
    with pytest.raises(ValueError, match=r"x\.py comes twice"):
        package.contents([*same, _distribution("c", **{"x.py": "2"})], tmp_path / "handler")


def test_too_large_a_zip_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The console would refuse it; and the last good one stays."""
    target = tmp_path / "x.zip"
    package.pack({"a": b"good"}, target)
    good = target.read_bytes()
    monkeypatch.setattr(package, "LIMIT", 10)
    with pytest.raises(ValueError, match="more than the 10"):
        package.pack({"a": b"bad"}, target)
    assert target.read_bytes() == good


def _wheel(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("a")
        for name, text in {"a-1.dist-info/METADATA": "Name: A.b\nRequires-Dist: c>1\n", **files}.items():
            archive.writestr(name, text)
    return path


def test_wheel_is_unpacked_without_what_an_installer_would_move(tmp_path: Path) -> None:
    """Scripts and headers stay out; code that must be moved is reported, not lost."""
    found = package.wheel(_wheel(tmp_path / "a.whl", **{"a.py": "", "a-1.data/scripts/a": ""}))
    assert (found.name, [str(each) for each in found.requires]) == ("a-b", ["c>1"])
    assert set(found.files) == {"a-1.dist-info/METADATA", "a.py"}
    with pytest.raises(ValueError, match="must be installed"):
        package.wheel(_wheel(tmp_path / "b.whl", **{"a-1.data/purelib/a.py": ""}))


def test_our_own_requirements_are_those_of_the_project() -> None:
    """All of them but what serves HTTP, which the platform does; and those of the extras."""
    names = {each.name for each in package.roots(ROOT / "pyproject.toml", ["oidc"])}
    assert {"cloudevents", "urllib3", "PyJWT"} <= names
    assert "functions-framework" not in names


def test_command_packs_what_pip_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how large the zip is, its digest, and what is in it."""
    monkeypatch.setattr(package, "fetch", lambda _, folder: _wheel(folder / "a.whl", **{"a.py": ""}))
    monkeypatch.setattr(package, "roots", lambda *_: [])
    monkeypatch.setattr(package, "platform_python", lambda _: None)
    target = tmp_path / "x.zip"
    assert package.main(["--output", str(target), "--with", "otel"]) == 0
    shown = capsys.readouterr().out
    assert "MiB of 40" in shown
    assert "without bytecode" in shown
    with zipfile.ZipFile(target) as archive:
        assert {"index.py", "LICENSE"} <= set(archive.namelist())
        assert "handler/services/stop_servers.py" in archive.namelist()


def test_one_handler_string_is_documented() -> None:
    """The platform loads a file: `index.handler`. Dotted packages are not documented for it."""
    for path in [*(ROOT / "deploy").rglob("*"), ROOT / "CHANGELOG.md"]:
        if path.suffix in (".md", ".tf", ".example"):
            assert not re.search(r"handler/functiongraph\.(handler|initializer)", path.read_text()), path

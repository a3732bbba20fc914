"""What is given to other people: a wheel that needs no compiler, and proves a layout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("stub.elf", "bochs-rom.bin", "bochs-shim.so", "flushes-x86.so", "flushes-riscv.so")
BUILT = {f"harness/machine/{name}" for name in NAMES}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sdist and the wheel of the tree as it is."""
    made = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(made)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    yield made
    shutil.rmtree(made)


def test_both_hold_the_stub_the_layouts_and_the_license(dist: Path) -> None:
    name = f"pagetable_harness-{PROJECT['version']}"
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as inside:
        names = set(inside.namelist())
    images = ROOT / "images"
    layouts = {f"harness/images/{one.relative_to(images)}" for one in images.rglob("*.toml")}
    assert "harness/images/riscv/smallest.toml" in layouts
    assert layouts | BUILT | {"harness/py.typed"} <= names
    assert f"{name}.dist-info/licenses/LICENSE" in names
    assert not any(part.startswith(("tests/", "guest/")) for part in names)
    with tarfile.open(dist / f"{name}.tar.gz") as inside:
        names = {part.removeprefix(f"{name}/") for part in inside.getnames()}
    assert (
        BUILT
        | {
            "LICENSE",
            "images/smallest.toml",
            "guest/x86/stub.c",
            "guest/plugin/shadow.c",
            "guest/plugin/x86/rules.c",
        }
        <= names
    )


@pytest.mark.parametrize(
    ("folder", "compiler", "too_old"),
    [
        ("riscv", "riscv64-linux-gnu-gcc", "rv64ima_zicsr_zifencei"),
        ("arm64", "aarch64-linux-gnu-gcc", "armv8.4-a"),
        ("power", "powerpc64le-linux-gnu-gcc", "power9"),
    ],
)
def test_a_compiler_that_is_missing_or_too_old_is_named_and_ends_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, compiler: str, too_old: str
) -> None:
    from guest.build_hook import BUILT, StubBuildHook

    for program in ("make", "sh", "gcc"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    sources = tmp_path / "guest" / folder
    shutil.copytree(ROOT / "guest" / folder, sources)
    shutil.copytree(ROOT / "guest" / "common", sources.parent / "common")
    monkeypatch.setenv("PATH", str(tmp_path))
    told: list[str] = []
    hook = StubBuildHook(str(tmp_path), {}, None, None, str(tmp_path), "wheel")  # type: ignore[arg-type]
    monkeypatch.setattr(hook.app, "display_warning", told.append)
    hook._build(sources, BUILT[folder], True)
    assert told.pop().endswith(f": there is no {compiler}")
    (tmp_path / compiler).write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / compiler).chmod(0o755)
    hook._build(sources, BUILT[folder], True)
    assert told.pop().endswith(f": {compiler} is too old for {too_old}")
    (tmp_path / compiler).write_text('#!/bin/sh\n[ "$*" != "${*%/dev/null -}" ]\n')
    with pytest.raises(SystemExit):  # what fails with one that is new enough is a fault
        hook._build(sources, BUILT[folder], True)


@pytest.mark.hw
def test_the_wheel_proves_a_layout_where_there_is_no_compiler(dist: Path, tmp_path: Path) -> None:
    place, programs = tmp_path / "venv", tmp_path / "bin"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    site = place / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as inside:
        inside.extractall(site)
    # What it depends on is where this Python has it, the project itself is not.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs.mkdir()
    for program in ("qemu-system-x86_64", "setpriv", "sh"):
        found = shutil.which(program)
        assert found is not None
        (programs / program).symlink_to(found)
    run = [
        str(place / "bin/python"),
        "-c",
        "import harness, sys; from harness.cli import main; print(harness.__file__); main()",
        *("validate", "smallest", "--engine", "tcg"),
    ]
    ended = subprocess.run(
        run,
        cwd=tmp_path,
        env={"PATH": str(programs), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0].startswith(str(site))
    assert "agree on tcg" in ended.stdout + ended.stderr


def test_the_version_is_printed() -> None:
    from tests.cli.commands import run

    code, out, errors = run("--version", cwd=ROOT)
    assert (code, out, errors) == (0, f"pagetable-harness {PROJECT['version']}\n", "")

"""What other projects write to have their page-table code proved, run as they would run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.flushes import guests

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
RUN = re.compile(r"^ *- run: (.*)$", re.MULTILINE)

MAPPED, FLUSHED = "test_what_is_mapped", "test_what_is_unmapped"

PLANTED = {
    "XD_MASK": (
        MAPPED,
        [
            "E   Failed: user fetch at 0x400000: #PF, error code 0x15 (P U I), CR2 0x400000",
            "E     expected  allowed, by 0x400000..0x40ffff ur-x, physical 0x8000000",
            "E               missed in all 64K",
            "E     because   the PTE at 0x*, level 0, holds 0x8000000008000005",
            "E     change    PTE at 0x*: 0x8000000008000005 -> 0x0000000008000005",
            "E                 clears XD: opens this 4K page to fetches",
        ],
    ),
    "SHIFT": (
        MAPPED,
        [
            "E   *user read at 0x7f1234567000: #PF, error code 0x4 (U), CR2 0x7f1234567000",
            "E     expected  allowed, by 0x7f1234567000..0x7f123456efff urw-, physical 0x8100000",
            "E     instead   0x7f2474567000 leads to 0x8100000: its PDPTE index, at level 2, is 145"
            " where this address has 72",
            "E     expected  nothing mapped: no expectation names these *",
        ],
    ),
    "UPPER_USER": (
        MAPPED,
        [
            "E   Failed: user read at 0x400000: #PF, error code 0x5 (P U), CR2 0x400000",
            "E     because   the PML4E at 0x*, level 3, holds 0x*003",
            "E               the PDPTE at 0x*, level 2, holds 0x*003",
            "E               the PDE at 0x*, level 1, holds 0x*003",
            "E     change    PML4E at 0x*: 0x*003 -> 0x*007",
            "E                 sets U: opens all 512G of 0x0..0x7fffffffff, *to the user*",
        ],
    ),
    "FLUSH": (
        FLUSHED,
        [
            "E   Failed: * answers disagree on tcg",
            "E   probe: * at 0x7f12345*",
            "E     hint      a flush may be missing: 0x7f12345*000* was unmapped and was not"
            " flushed, and * still end* as at call 1 of live.probe (SDM 4.10.4)",
            "E     expected  #PF(0x*) at level 0: the entry is not present (4.7); at call 2 of *",
        ],
    ),
}
"""The bugs of vmm.c: the test that fails, and lines of what is printed, in their order."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project in C, without a file that was built but its kernel."""
    project = Path(shutil.copytree(HERE / "c", tmp_path / "project"))
    shutil.copy(guests.guest(4), project / "kernel.elf")
    return project


def environment(**more: str) -> dict[str, str]:
    """That of a shell in which this package is installed."""
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **more}


def done(*command: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )


def built(project: Path, bug: str = "NONE") -> None:
    """The library, with a bug."""
    options = ("-shared", "-fPIC", f"-DBUG_{bug}", "-o", "libvmm.so", "vmm.c")
    made = done("gcc", "-Wall", "-Werror", *options, cwd=project)
    assert made.returncode == 0, made.stderr


_WITHOUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
PYTEST = (sys.executable, "-m", "pytest", *_WITHOUT, "--tb=short")
"""Without Hypothesis, whose plugin another project need not have."""


def pytest_in(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = (*PYTEST, "--pagetable-engine=tcg", *options, "test_vmm.py")
    return done(*command, cwd=project)


def in_order(lines: list[str], patterns: list[str]) -> list[str]:
    """The patterns, from the first that no line matches after the one before it."""
    left = iter(lines)
    for number, pattern in enumerate(patterns):
        # Brackets are none of fnmatch's here.
        escaped = pattern.replace("[", "[[]")
        if not any(fnmatch(line, escaped) for line in left):
            return patterns[number:]
    return []


@pytest.mark.hw
def test_a_mapper_in_c_is_proved_by_pytest(project: Path) -> None:
    built(project)
    ended = pytest_in(project)
    assert "6 passed" in ended.stdout, ended.stdout


@pytest.mark.hw
@pytest.mark.parametrize("bug", PLANTED)
def test_each_bug_is_found_by_what_is_printed(project: Path, bug: str) -> None:
    built(project, bug)
    test, patterns = PLANTED[bug]
    ended = pytest_in(project, "-k4-level")
    failed = re.findall(r"^FAILED test_vmm\.py::(\w+)", ended.stdout, re.MULTILINE)
    assert any(name.startswith(test) for name in failed), ended.stdout
    assert in_order(ended.stdout.splitlines(), patterns) == [], ended.stdout


@pytest.mark.hw
@pytest.mark.parametrize("bug", ["NONE", "SHIFT"])
def test_a_program_in_c_has_its_tables_proved_without_python(project: Path, bug: str) -> None:
    made = done(
        "gcc", "-Wall", "-Werror", f"-DBUG_{bug}", "-o", "program", "program.c", cwd=project
    )
    assert made.returncode == 0, made.stderr
    ended = done("./program", cwd=project)
    suite = ElementTree.parse(project / "program.xml").getroot()
    if bug == "NONE":
        assert (ended.returncode, suite.get("failures")) == (0, "0"), ended.stdout
        assert ended.stdout.splitlines()[-1].endswith("(strict).")
        assert "All 4 expectations are met. Nothing else is mapped" in ended.stdout
    else:
        assert (ended.returncode, suite.get("failures")) == (1, "3"), ended.stdout
        assert "0x7f2474567000 leads to 0x5100000: its PDPTE index" in ended.stdout


@pytest.mark.hw
@pytest.mark.parametrize("bug", [(), ("--features", "bug_upper_user")], ids=["none", "upper user"])
def test_a_crate_is_proved_by_cargo_test(tmp_path: Path, bug: tuple[str, ...]) -> None:
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed")
    crate = shutil.copytree(HERE / "rust", tmp_path / "crate")
    ended = done("cargo", "test", "--offline", *bug, cwd=Path(crate), TMPDIR=str(tmp_path))
    assert (ended.returncode == 0) is (not bug), ended.stdout + ended.stderr
    if bug:
        assert "because   the PML4E at 0x2000" in ended.stdout
    else:
        assert "1 passed" in ended.stdout


def steps() -> list[str]:
    """What the workflow runs, step by step."""
    return RUN.findall((HERE / "workflow.yml").read_text())


def test_the_workflow_installs_what_this_project_asks_for() -> None:
    packages = next(step for step in steps() if "apt-get install" in step).split()
    assert {"gcc", "make", "qemu-system-x86"} <= set(packages)
    assert "pip install pytest ./pagetable-harness" in steps()


@pytest.mark.hw
def test_the_steps_of_the_workflow_succeed_in_a_fresh_environment(project: Path) -> None:
    """But those that change the machine, and with the packages that this environment has."""
    place = project.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    site = place / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (project / "pagetable-harness").symlink_to(ROOT)
    started = time.time()
    for step in steps():
        if step.startswith("sudo "):
            continue
        # What pip would bring is there: it finds that, and installs no programs for it.
        step = step.replace(
            "pip install", "python -m pip install --no-build-isolation -q --no-deps"
        )
        step = re.sub("^pytest", "python -m pytest", step)
        ended = subprocess.run(
            step,
            shell=True,
            cwd=project,
            env={**environment(), "PATH": f"{place}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{step}\n{ended.stdout}\n{ended.stderr}"
    assert (site / "harness").is_dir()
    suite = ElementTree.parse(project / "tables.xml").getroot().find("testsuite")
    assert suite is not None and (suite.get("tests"), suite.get("failures")) == ("6", "0")
    assert (project / "program.xml").stat().st_mtime > started

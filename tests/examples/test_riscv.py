"""What another project would write for RISC-V, in C, run as it would run it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.examples.test_examples import FLUSHED, HERE, MAPPED, PYTEST, done, in_order
from tests.machine.riscv.present import QEMU, why_absent

PLANTED = {
    "PPN": (
        MAPPED,
        [
            "E   Failed: the table at 0x2*, level 1, lies outside the region 0x8*: no one has *",
            "E   user read at 0x400000: load access fault (cause 5), stval 0x400000",
            "E     rule      no memory is where the entry would be (step 2), at level 1",
        ],
    ),
    "SHIFT": (
        MAPPED,
        [
            "E   *user read at 0x3f12345000: load page fault (cause 13), stval 0x3f12345000",
            "E     expected  allowed, by 0x3f12345000..0x3f1234cfff urw-, physical 0x88100000",
            "E               missed in all 32K, by user write too",
            "E     instead   0xfffffffe12345000 leads to 0x88100000: its PTE index, at level 2, is"
            " 504 where this address has 252",
            "E     change    PTE at 0x*, now 0x0: 0x1 | the address of a new table >> 2",
            "E               in that table, entry 145 (PTE): 0x1 | the address of a new table >> 2",
            "E               in that table, entry 325 (PTE): 0x22040017",
            "E   user read at 0xfffffffe12345000: allowed, reaches 0x88100000",
            "E     expected  nothing mapped: no expectation names these *",
        ],
    ),
    "WRITE_ONLY": (
        MAPPED,
        [
            "E   *user read at 0x3f12345000: load page fault (cause 13), stval 0x3f12345000",
            "E     change    PTE at 0x*: 0x00000000220400d5 -> 0x00000000220400d7",
            "E                 sets R: opens this 4K page to reads",
            "E   * reserved: 0x4 W without R *",
        ],
    ),
    "USER": (
        MAPPED,
        [
            "E   *user read at 0xffffffff80000000: allowed, reaches 0x89000000",
            "E     expected  denied, by 0xffffffff80000000..0xffffffff807fffff -rwx, *",
            "E     change    PTE at 0x*: 0x00000000224000ff -> 0x00000000224000ef",
            "E                 keeps this 2M page for the supervisor",
            "E   supervisor read at 0xffffffff80000000: load page fault (cause 13), *",
            "E     rule      a data access of S-mode to a page with U=1, with SUM=0 (step 6), *",
            "E   supervisor fetch at 0xffffffff80000000: instruction page fault (cause 12), *",
        ],
    ),
    "POINTER_USER": (
        MAPPED,
        [
            "E   *user read at 0x400000: load page fault (cause 13), stval 0x400000",
            "E     because   the PTE at 0x*, level 2, holds 0x*11",
            "E     change    PTE at 0x*: 0x*11 -> 0x*01",
            "E                 changes reserved 0x10: U, A or D in a pointer",
        ],
    ),
    "POINTER_RIGHTS": (
        MAPPED,
        [
            "E   *user read at 0x400000: load page fault (cause 13), stval 0x400000",
            "E     because   the PTE at 0x*, level 2, holds 0x*0f",
            "E   * reserved: 0x* below a superpage *",
        ],
    ),
    "FLUSH": (
        FLUSHED,
        [
            "E   Failed: * answer* disagree* on tcg",
            "E   probe: * with SUM=* at 0x3f1234*",
            "E     hint      a flush may be missing: 0x3f1234*000* was unmapped and was not"
            " flushed, and * still end* as at call 1 of live.probe (Supervisor Memory-Management *",
            "E     expected  cause 1*: the entry has V=0 (step 3); at call 2 of live.probe",
        ],
    ),
}
"""The bugs of vmm.c: the test that fails, and lines of what is printed, in their order."""

ACCESSED = [
    "user read at 0x400000: load page fault (cause 13), stval 0x400000",
    "  expected  allowed, by 0x400000..0x40ffff ur-x, physical 0x88000000 (kernel.toml, expect 1)",
    "  rule      the page has A=0, which the hart does not set (Svade; step 9), at level 0",
    "  change    PTE at 0x80202000: 0x000000002200001b -> 0x000000002200005b",
    "              sets A: marks this 4K page used",
]
"""What is printed of the one that a hart which sets A and D itself does not show."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project, without a file that was built."""
    if reason := why_absent(64):
        pytest.skip(reason)
    return Path(shutil.copytree(HERE / "riscv", tmp_path / "project"))


def built(project: Path, bug: str, source: str, target: str, *options: str) -> None:
    options = ("-Wall", "-Werror", f"-DBUG_{bug}", *options)
    made = done("gcc", *options, "-o", target, source, cwd=project)
    assert made.returncode == 0, made.stderr


def pytest_in(project: Path, bug: str, *options: str) -> subprocess.CompletedProcess[str]:
    built(project, bug, "vmm.c", "libvmm.so", "-shared", "-fPIC")
    chosen = ("--pagetable-arch=riscv", "--pagetable-qemu", QEMU)
    return done(*PYTEST, *chosen, *options, "test_vmm.py", cwd=project)


@pytest.mark.hw
def test_a_mapper_in_c_is_proved_by_pytest(project: Path) -> None:
    ended = pytest_in(project, "NONE")
    assert "6 passed" in ended.stdout, ended.stdout


@pytest.mark.hw
@pytest.mark.parametrize("bug", PLANTED)
def test_each_bug_is_found_by_what_is_printed(project: Path, bug: str) -> None:
    test, patterns = PLANTED[bug]
    ended = pytest_in(project, bug, "-ksv39")
    failed = re.findall(r"^FAILED test_vmm\.py::(\w+)", ended.stdout, re.MULTILINE)
    assert any(name.startswith(test) for name in failed), ended.stdout
    assert in_order(ended.stdout.splitlines(), patterns) == [], ended.stdout


@pytest.mark.hw
@pytest.mark.parametrize(
    ("bug", "failures", "patterns"),
    [("NONE", 0, []), ("AD", 3, ACCESSED), ("SHIFT", 3, ["*its PTE index, at level 2, is 504 *"])],
)
def test_a_program_in_c_has_its_tables_proved_without_python(
    project: Path, bug: str, failures: int, patterns: list[str]
) -> None:
    """Its tables are where the machine has its own memory unless that gives way."""
    built(project, bug, "program.c", "program")
    ended = done("./program", cwd=project)
    suite = ElementTree.parse(project / "program.xml").getroot()
    assert suite.get("failures") == str(failures), ended.stdout
    assert ended.returncode == bool(failures), ended.stdout
    assert in_order(ended.stdout.splitlines(), patterns) == [], ended.stdout
    if not failures:
        said = "All 4 expectations are met. Nothing else is mapped (strict)."
        assert ended.stdout.splitlines()[-1].endswith(said)

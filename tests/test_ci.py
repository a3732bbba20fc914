"""What .ci brings and prints; the packages and the mirror are made up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUITES = {"bookworm": "7.2.22", "trixie": "10.0.13", "trixie-backports": "11.1.3"}
RISCV = dict.fromkeys(SUITES, "qemu-system-riscv") | {"bookworm": "qemu-system-misc"}
S390 = dict.fromkeys(SUITES, "qemu-system-misc") | {"trixie-backports": "qemu-system-s390x"}
BOCHS = {"bookworm": "2.7", "trixie": "3.0"}

APT = """#!/bin/sh
case "$*" in
    indextargets*)
        echo "nodistro https://one.example/"
        echo "$CODENAME-security https://two.example/debian-security"
        echo "$CODENAME https://three.example/debian" ;;
    *" install "*)
        suite=$(echo "$*" | sed 's/.*--target-release \\([a-z-]*\\).*/\\1/')
        echo "install $suite ${*##* }" >>"$LOG"
        cp "$PACKAGES/$suite.deb" "$(dirname "$2")/debs" ;;
    *" update")
        sed 's/\\[.*\\] //' "$(dirname "$2")/sources.list" >>"$LOG"
        [ -z "$OFFLINE" ] || { echo "E: Failed to fetch"; exit 100; } ;;
esac
"""
"""In place of apt-get: its mirror is the third."""

LOADER = """#!/bin/sh
case "$*" in *bochs-bin*) exec echo "Bochs x86 Emulator {bochs}" ;; esac
echo "QEMU emulator version {version} (Debian 1:{version})"
echo "$*"
"""
"""In place of the loader of shared libraries, and so of QEMU and Bochs."""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of this Debian, with packages of our own."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    codename = release.get("VERSION_CODENAME", "").strip('"')
    if codename not in SUITES:
        pytest.skip("this is neither Debian 12 nor 13")
    packages, programs = tmp_path / "packages", tmp_path / "bin"
    programs.mkdir()
    for suite, version in SUITES.items():
        tree = packages / suite
        loader = tree / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        loader.parent.mkdir(parents=True)
        loader.write_text(LOADER.format(version=version, bochs=BOCHS.get(suite, "")))
        loader.chmod(0o755)
        (tree / "DEBIAN").mkdir()
        control = "Package: qemu-system-x86\nVersion: 1\nArchitecture: all\n"
        (tree / "DEBIAN" / "control").write_text(f"{control}Maintainer: us\nDescription: fake\n")
        build = ["dpkg-deb", "--build", str(tree), str(packages / f"{suite}.deb")]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    apt = programs / "apt-get"
    apt.write_text(APT)
    apt.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PACKAGES": str(packages),
        "LOG": str(tmp_path / "log"),
        "OFFLINE": "",
        "CODENAME": codename,
    }


@pytest.fixture
def expected(machine: dict[str, str]) -> dict[str, str]:
    """The versions that are to be brought, by suite."""
    return {suite: one for suite, one in SUITES.items() if suite != machine["CODENAME"]}


@pytest.fixture
def expected_bochs(machine: dict[str, str]) -> dict[str, str]:
    """The same of Bochs."""
    return {suite: one for suite, one in BOCHS.items() if suite != machine["CODENAME"]}


def engines(machine: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / ".ci" / "engines", folder]
    return subprocess.run(command, env=machine, capture_output=True, text=True, check=False)


def test_what_is_not_installed_is_brought_once_and_runs_from_its_own_folder(
    machine: dict[str, str],
    expected: dict[str, str],
    expected_bochs: dict[str, str],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "with space"
    for _ in range(2):
        brought = engines(machine, folder)
        assert (brought.returncode, brought.stderr) == (0, "")
        lines = [
            f"{folder}/qemu-{version.rpartition('.')[0]}: QEMU {version} of {suite}"
            for suite, version in expected.items()
        ]
        lines += [
            f"{folder}/qemu-{version.rpartition('.')[0]}-riscv{bits}: QEMU {version} of {suite}"
            for suite, version in expected.items()
            for bits in (64, 32)
        ]
        lines += [
            f"{folder}/qemu-{version.rpartition('.')[0]}-{target}: QEMU {version} of {suite}"
            for target in ("aarch64", "ppc64", "s390x")
            for suite, version in expected.items()
        ]
        lines += [
            f"{folder}/bochs-{version}: Bochs {version} of {suite}"
            for suite, version in expected_bochs.items()
        ]
        assert brought.stdout.splitlines() == lines
    log = Path(machine["LOG"]).read_text().splitlines()
    assert [line for line in log if line.startswith("install")] == [
        *(f"install {suite} seabios" for suite in expected),
        *(f"install {suite} {RISCV[suite]}" for suite in expected),
        *(f"install {suite} qemu-system-arm" for suite in expected),
        *(f"install {suite} qemu-system-ppc" for suite in expected),
        *(f"install {suite} {S390[suite]}" for suite in expected),
        *(f"install {suite} bochs-term" for suite in expected_bochs),
    ]
    assert {line.split()[1] for line in log if line.startswith("deb ")} == {
        "https://three.example/debian"
    }
    said = subprocess.run(
        [folder / "qemu-11.1", "-S", "a b"], capture_output=True, text=True, check=True
    ).stdout
    assert f"{folder}/trixie-backports/usr/bin/qemu-system-x86_64 -L {folder}/" in said
    assert said.endswith(" -S a b\n")
    assert not list(folder.glob(".work*"))


def test_what_cannot_be_fetched_is_a_sentence_each_and_leaves_nothing(
    machine: dict[str, str],
    expected: dict[str, str],
    expected_bochs: dict[str, str],
    tmp_path: Path,
) -> None:
    brought = engines({**machine, "OFFLINE": "yes"}, tmp_path / "engines")
    assert (brought.returncode, brought.stdout) == (1, "")
    assert [line.partition(": ")[2] for line in brought.stderr.splitlines()] == [
        f"the {maker} of {suite} cannot be fetched: E: Failed to fetch"
        for maker, suites in (
            ("QEMU", expected),
            ("QEMU for RISC-V", expected),
            ("QEMU for arm64", expected),
            ("QEMU for POWER", expected),
            ("QEMU for s390x", expected),
            ("Bochs", expected_bochs),
        )
        for suite in suites
    ]
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [".lock"]


REPORT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest" time="1.5">
<properties>
<property name="python" value="3.11"/>
<property name="engine tcg" value="QEMU 11.1.3, executed by tcg 11.1.3"/>
<property name="engine kvm" value="absent: There is no /dev/kvm."/>
</properties>
<testcase name="a"/><testcase name="b"/><testcase name="c"><skipped message="no"/></testcase>{}
</testsuite></testsuites>
"""


def summary(*paths: Path) -> tuple[int, list[str]]:
    command = [sys.executable, *map(str, (ROOT / ".ci" / "summary.py", *paths))]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return ended.returncode, ended.stdout.splitlines()


def test_the_summary_names_the_engines_of_every_run_and_ends_as_pytest_does(tmp_path: Path) -> None:
    one, other = tmp_path / "one.xml", tmp_path / "other.xml"
    one.write_text(REPORT.format(""))
    other.write_text(REPORT.format('<testcase name="d"/>'))
    who = "(tcg: QEMU 11.1.3, executed by tcg 11.1.3; kvm: absent: There is no /dev/kvm.)"
    assert summary(one, other) == (
        0,
        [
            f"{one}: 2 passed, 1 skipped {who}",
            f"{other}: 3 passed, 1 skipped {who}",
            "5 passed, 2 skipped in 3.00s",
        ],
    )


@pytest.mark.parametrize(
    ("case", "sums"),
    [
        ('<testcase name="d"><failure/></testcase>', "1 failed, 4 passed, 2 skipped in 3.00s"),
        ('<testcase name="d"><error/></testcase>', "4 passed, 2 skipped, 1 error in 3.00s"),
    ],
)
def test_the_summary_fails_with_a_run(tmp_path: Path, case: str, sums: str) -> None:
    one, other = tmp_path / "one.xml", tmp_path / "other.xml"
    one.write_text(REPORT.format(""))
    other.write_text(REPORT.format(case))
    code, lines = summary(one, other)
    assert (code, lines[-1]) == (1, sums)


def test_a_run_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    one = tmp_path / "one.xml"
    one.write_text(REPORT.format(""))
    code, lines = summary(one, tmp_path / "none.xml")
    assert code == 1
    assert lines[1:] == [
        f"{tmp_path}/none.xml: not written, the run ended before",
        "2 passed, 1 skipped, 1 error in 1.50s",
    ]


MAKE = """#!/bin/sh
echo "make $*"
for word; do
    case "$word" in
        JUNIT=*) cp "$REPORT" "${word#JUNIT=}" ;;
        $FAILING) exit 2 ;;
    esac
done
"""
"""In place of make: what is to report does."""


def checked(machine: dict[str, str], tmp_path: Path, **more: str) -> tuple[int, list[str]]:
    """The exit code of .ci/run in a clone, and the lines that it printed."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / ".ci", clone / ".ci")
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (clone / ".ci" / "setup").write_text("#!/bin/sh\n")
    make = tmp_path / "bin" / "make"
    make.write_text(MAKE)
    make.chmod(0o755)
    (tmp_path / "report.xml").write_text(REPORT.format(""))
    environment = {**machine, "REPORT": str(tmp_path / "report.xml"), "FAILING": "", **more}
    ended = subprocess.run(
        [clone / ".ci" / "run"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout.splitlines()


WHO = "2 passed, 1 skipped (tcg: QEMU 11.1.3, executed by tcg 11.1.3; kvm: absent: There is no"


def test_a_commit_is_checked_on_all_versions_and_the_last_lines_say_so(
    machine: dict[str, str],
    expected: dict[str, str],
    expected_bochs: dict[str, str],
    tmp_path: Path,
) -> None:
    code, lines = checked(machine, tmp_path)
    short = sorted(version.rpartition(".")[0] for version in expected.values())  # as a shell lists
    assert code == 0
    assert [line for line in lines if line.startswith("make ")] == [
        "make lint",
        "make test JUNIT=build/test.xml",
        *(
            f"make test-hw QEMU=build/engines/qemu-{one}"
            f" QEMU_RISCV=build/engines/qemu-{one}-riscv64"
            f" QEMU_ARM64=build/engines/qemu-{one}-aarch64"
            f" QEMU_POWER=build/engines/qemu-{one}-ppc64"
            f" QEMU_S390=build/engines/qemu-{one}-s390x JUNIT=build/test-hw-qemu-{one}.xml"
            for one in short
        ),
        *(
            f"make test-bochs BOCHS=build/engines/bochs-{one} JUNIT=build/test-bochs-{one}.xml"
            for one in sorted(expected_bochs.values())
        ),
    ]
    reports = [
        "build/test.xml",
        *(f"build/test-hw-qemu-{one}.xml" for one in short),
        *(f"build/test-bochs-{one}.xml" for one in sorted(expected_bochs.values())),
    ]
    assert [line.partition(" /dev")[0] for line in lines[-len(reports) - 1 : -1]] == [
        f"{report}: {WHO}" for report in reports
    ]
    assert lines[-1] == "8 passed, 4 skipped in 6.00s"


def test_versions_that_cannot_be_fetched_are_named_at_the_end_and_no_failure(
    machine: dict[str, str],
    expected: dict[str, str],
    expected_bochs: dict[str, str],
    tmp_path: Path,
) -> None:
    code, lines = checked(machine, tmp_path, OFFLINE="yes")
    assert code == 0
    missing = [line for line in lines if line.startswith("not run: ")]
    assert [line.partition(" the ")[2] for line in missing] == [
        f"{maker} of {suite} cannot be fetched: E: Failed to fetch"
        for maker, suites in (
            ("QEMU", expected),
            ("QEMU for RISC-V", expected),
            ("QEMU for arm64", expected),
            ("QEMU for POWER", expected),
            ("QEMU for s390x", expected),
            ("Bochs", expected_bochs),
        )
        for suite in suites
    ]
    assert lines[-1] == "2 passed, 1 skipped in 1.50s"


@pytest.mark.parametrize("failing", ["lint", "test", "test-hw", "test-bochs"])
def test_what_fails_is_no_reason_to_leave_out_the_rest_but_the_run_fails(
    machine: dict[str, str], tmp_path: Path, failing: str
) -> None:
    code, lines = checked(machine, tmp_path, FAILING=failing)
    assert code == 1
    assert len([line for line in lines if line.startswith("make ")]) == 5


@pytest.mark.parametrize("headers", [True, False])
def test_a_gcc_that_has_nothing_to_include_gets_the_headers(tmp_path: Path, headers: bool) -> None:
    """Debian's gcc only recommends them; nothing is installed here."""
    for program, code in {"gcc": not headers, "apt-get": 1, "sudo": 1}.items():
        (tmp_path / program).write_text(f"#!/bin/sh\nexit {int(code)}\n")
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci/setup"],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "QEMU": sys.executable,
            "PYTHON": sys.executable,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ("libc6-dev" in done.stdout) is not headers
    assert (done.returncode == 0) is headers

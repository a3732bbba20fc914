"""What commands refuse, and how they end where their guest does not do as it should: of the
architectures whose guests QEMU alone runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, gone, guest_of, run, running

pytestmark = pytest.mark.hw

ARCHS = ("arm64", "s390", "power")
OTHER = "qemu-system-x86_64"
DRAWN = {"arm64": "--mode=4k", "s390": "--mode=segment", "power": "--mode=4k"}
"""A part of the matrix, so that a guest is soon there."""


@pytest.fixture(params=ARCHS)
def arch(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if reason := import_module(f"tests.machine.{name}.present").why_absent():
        pytest.skip(reason)
    return name


def of(arch: str) -> str:
    """The QEMU that is tested."""
    qemu: str = import_module(f"tests.machine.{arch}.present").QEMU
    return qemu


def is_a_sentence(errors: str) -> None:
    assert errors.startswith("pagetable: ")
    assert errors.count("\n") == 1
    assert "Traceback" not in errors and "Errno" not in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("validate", "--engine=kvm", "smallest"), "there is no engine 'kvm' for {arch}"),
        (("validate", "--bochs=bochs", "smallest"), "--bochs has no use: QEMU alone runs {arch}"),
        (("validate", "nonsense"), "no layout is called 'nonsense'"),
        (("validate", f"{ROOT}/images/linux-4.toml"), "is written for x86: say --arch x86"),
        (("validate", "--levels=9", "smallest"), "smallest is written for"),
        (("validate", "--qemu=nowhere", "smallest"), "QEMU_{ARCH}"),
        (("validate", "smallest", "--report=/proc/none"), "/proc/none cannot hold a report: No"),
        (("matrix", "--engine=kvm"), "there is no engine 'kvm' for {arch}"),
        (("matrix", "--mode=sv39"), "{arch} has no mode 'sv39': choose one of"),
        (("matrix", "--where=nonsense"), "there is no axis 'nonsense'"),
        (("matrix", "--jobs=0"), "0 guests can try nothing"),
        (("matrix", "--qemu=nowhere"), "QEMU_{ARCH}"),
        (("rules", "--mode=sv39"), "{arch} has no mode 'sv39'"),
        (("rules", "--qemu=nowhere"), "QEMU_{ARCH}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_a_sentence(
    arch: str, arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    command, *rest = arguments
    qemu = () if "--qemu=nowhere" in rest else (f"--qemu={of(arch)}",)
    code, output, errors = run(command, f"--arch={arch}", *qemu, *rest, cwd=tmp_path)
    assert (code, output) == (2, "")
    is_a_sentence(errors)
    assert said.format(arch=arch, ARCH=arch.upper()) in errors


DIES = "#!/bin/sh\nexit 7\n"
KILLED = '#!/bin/sh\necho "out of luck" >&2\nkill -SEGV $$\n'


@pytest.fixture(params=["dies", "killed", "of another architecture"])
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A QEMU that does not run the guest, and what is said of it."""
    if request.param == "of another architecture":
        if shutil.which(OTHER) is None:
            pytest.skip(f"there is no {OTHER} in PATH")
        return OTHER, f"{OTHER} is no QEMU for"
    made = tmp_path / "qemu"
    made.write_text(DIES if request.param == "dies" else KILLED)
    made.chmod(0o755)
    said = "(exit code 7)" if request.param == "dies" else "(ended by SIGSEGV)"
    return str(made), f"it ended before its monitor answered {said}"


@pytest.mark.parametrize("command", ["validate", "matrix", "rules", "layout", "access"])
def test_a_qemu_that_does_not_run_the_guest_is_code_3(
    arch: str, command: str, wrong: tuple[str, str], tmp_path: Path
) -> None:
    """Of `replay` with a case of a layout, and of the matrix."""
    qemu, said = wrong
    if command in ("layout", "access"):
        cases = import_module(f"tests.check.{arch}.test_saved_cases")
        case = cases.of_layout() if command == "layout" else cases.of_matrix()
        arguments = ["replay", str(case.save(tmp_path / "cases"))]
    else:
        what = {"validate": "smallest", "matrix": DRAWN[arch], "rules": DRAWN[arch]}
        arguments = [command, f"--arch={arch}", what[command]]
    code, _, errors = run(*arguments, f"--qemu={qemu}", cwd=tmp_path)
    assert code == 3
    is_a_sentence(errors)
    assert said in errors
    assert "out of luck" in errors or "SIGSEGV" not in errors


def test_the_environment_names_another_qemu(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(OTHER) is None:
        pytest.skip(f"there is no {OTHER} in PATH")
    monkeypatch.setenv(f"QEMU_{arch.upper()}", OTHER)
    code, _, errors = run("validate", f"--arch={arch}", "smallest", cwd=tmp_path)
    assert code == 3
    assert f"{OTHER} is no QEMU for" in errors


def test_a_guest_that_is_lost_is_code_3_and_its_evidence_is_kept(arch: str, tmp_path: Path) -> None:
    asked = ("validate", f"--arch={arch}", f"--qemu={of(arch)}", "dense")
    with running(*asked, cwd=tmp_path) as process:
        os.kill(guest_of(process), signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    is_a_sentence(errors)
    assert "ended by SIGKILL" in errors and "and then the machine failed" in output
    assert "SIGKILL" in (tmp_path / "build" / "cases" / "failure.txt").read_text()


@pytest.mark.parametrize("command", ["validate", "matrix"])
def test_ctrl_c_is_one_line_and_ends_the_guest(arch: str, command: str, tmp_path: Path) -> None:
    what = ("dense",) if command == "validate" else (DRAWN[arch], "--jobs=2")
    asked = (command, f"--arch={arch}", f"--qemu={of(arch)}", *what)
    with running(*asked, cwd=tmp_path) as process:
        guest = guest_of(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "pagetable: interrupted.\n")
    assert gone(guest)


@pytest.mark.parametrize("limit", ["--fsize=100000", "--nofile=12"])
def test_no_room_is_a_sentence(arch: str, limit: str, tmp_path: Path) -> None:
    """For the guest's memory, and for what it is connected by."""
    asked = ("validate", f"--arch={arch}", f"--qemu={of(arch)}", "smallest")
    found = subprocess.run(
        ["prlimit", limit, sys.executable, "-m", "harness", *asked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.returncode == 3
    is_a_sentence(found.stderr)

"""`pagetable flushes`: exit codes, what it prints, and commands that cannot be watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import pytest

from harness.check.flushes import Flushes
from harness.cli.flushes import flushes
from harness.machine.patience import Clock
from harness.machine.plugin import DEADLINE, Ending, Report, Watched
from tests.cli.commands import ROOT, children, run, running
from tests.flushes.guests import SHORT, command, guest

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
on_machine = pytest.mark.hw


def program(directory: Path, text: str) -> Path:
    """A stand-in for QEMU."""
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@on_machine
def test_a_missing_flush_is_told_with_names_and_walks(tmp_path: Path) -> None:
    report = tmp_path / "report"
    code, out, _ = run(
        *("flushes", "--symbols", guest(4), "--deadline", SHORT, "--report", report, "--"),
        *command(QEMU, 4),
        cwd=tmp_path,
    )
    assert code == 1
    causes = [line for line in out.splitlines() if line[:1].isdigit()]
    assert len(causes) == 13
    assert all("of them late" in line for line in causes)
    assert "file of symbols" not in out
    assert "which unmaps it, by processor 0 at 0x" in out
    assert " run_cases+0x" in out or " unmaps+0x" in out
    assert "A flush is missing: 13 late uses of what was cached before a change" in out
    assert "(exit code 1)" in out
    assert (report / "flushes.txt").read_text() == out
    told = json.loads((report / "flushes.json").read_text())
    assert (told["verdict"], told["late"], told["exit_code"]) == ("missing", 13, 1)


@on_machine
def test_a_kernel_that_flushes_as_it_should_passes(tmp_path: Path) -> None:
    words = ("flushes", "--fail-on", "stale", "--", *command(QEMU, 4, wanted="legal"))
    code, out, errors = run(*words, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "No stale use of a translation was found, among 16 changes" in out


@on_machine
def test_uses_that_a_later_flush_may_excuse_count_when_asked(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("ffffffff81000000 T other\n")
    options = ("--fail-on", "stale", "--symbols", "other", "--json")
    code, out, _ = run("flushes", *options, "--", *command(QEMU, 4), cwd=tmp_path)
    told = json.loads(out)
    assert (code, told["verdict"], told["fail_on"]) == (1, "missing", "stale")
    assert [cause["uses"] for cause in told["causes"]] == [1] * told["uses"]
    assert {cause["late"] for cause in told["causes"]} == {0, 1}
    assert told["uses_without_author"] == 2
    notes = "\n".join(told["notes"])
    assert "whose store was not seen, which are never late: 2" in notes
    assert "is in the file of symbols: it is another kernel's" in notes


@on_machine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_qemu_and_brings_the_report(number: int) -> None:
    words = [sys.executable, "-m", "harness", "flushes", "--", *command(QEMU, 4), "-S"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        qemu = started(process.pid)
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert "ended     by Ctrl-C or SIGTERM" in out
    assert process.returncode == 2
    assert not Path(f"/proc/{qemu}").exists()


@on_machine
def test_qemu_ends_with_a_command_that_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "harness", "flushes", "--", *command(QEMU, 4), "-S"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        qemu = started(process.pid)
        process.kill()
    clock = Clock(0)
    while Path(f"/proc/{qemu}").exists() and clock.now() < 20:
        time.sleep(0.01)
    assert not Path(f"/proc/{qemu}").exists()


def started(parent: int) -> int:
    """The process of QEMU, once the plugin has begun to report."""
    clock = Clock(parent)
    while clock.now() < 20:
        for child in children(parent):
            try:
                if reports(child):
                    return child
            except OSError:
                pass
        time.sleep(0.01)
    raise AssertionError("QEMU has not started within 20 s")


def reports(pid: int) -> bool:
    """Whether a process has the plugin, which has written to the file that it shares."""
    if "flushes-x86.so" not in Path(f"/proc/{pid}/maps").read_text():
        return False
    files = Path(f"/proc/{pid}/fd").iterdir()
    shared = [one for one in files if "memfd:flushes" in os.readlink(one)]
    return any(one.read_bytes().strip(b"\0") for one in shared)


@pytest.mark.parametrize(
    "words",
    [["-enable-kvm"], ["-accel", "kvm"], ["-machine", "q35,accel=kvm:tcg"], ["-accel", "kvm,x=y"]],
)
def test_a_guest_on_the_processor_of_the_host_is_refused(words: list[str], tmp_path: Path) -> None:
    code, _, errors = run("flushes", "--", "true", *words, cwd=tmp_path)
    assert code == 2
    assert "no plugin sees" in errors
    assert "  " not in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--fail-on", "never"), "there is no 'never' to fail on: choose late or stale"),
        (("--symbols", "absent"), "absent cannot be read: No such file or directory"),
        (("--symbols", "empty"), "empty has no symbols of code"),
        (("--symbols", "broken"), "broken is no ELF file that can be read"),
        (("--report", "empty"), "empty cannot hold a report: it is not a folder"),
    ],
)
def test_misuse_is_a_sentence(options: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "broken").write_bytes(b"\x7fELF" + bytes(8))
    code, out, errors = run("flushes", *options, "--", "true", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors
    assert errors.count("\n") == 1


def test_a_qemu_that_would_be_left_behind_is_refused(tmp_path: Path) -> None:
    code, _, errors = run("flushes", "--", "true", "-daemonize", cwd=tmp_path)
    assert (code, errors.count("\n")) == (2, 1)
    assert "with -daemonize QEMU leaves the process that started it" in errors


def test_a_command_that_there_is_not_is_misuse(tmp_path: Path) -> None:
    code, _, errors = run("flushes", "--", "no-such-qemu", cwd=tmp_path)
    assert code == 2
    assert "no-such-qemu is not a program, and not in PATH" in errors


def test_a_guest_of_another_architecture_is_refused(tmp_path: Path) -> None:
    for program in ("qemu-system-aarch64", "/opt/bin/qemu-system-aarch64", "qemu-10-aarch64"):
        code, out, errors = run("flushes", "--", program, "-M", "virt", cwd=tmp_path)
        assert (code, out, errors.count("\n")) == (2, "", 1)
        assert "runs a guest of arm64, whose flushes are not watched: the plugin follows" in errors


def test_a_value_of_an_option_is_none_itself(tmp_path: Path) -> None:
    qemu = program(tmp_path, "exit 7")
    code, _, errors = run("flushes", "--", qemu, "-append", "enable-kvm", cwd=tmp_path)
    assert (code, "exit code 7" in errors) == (3, True)


@on_machine
def test_a_qemu_that_crashes_is_a_failure_after_the_report(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "harness", "flushes", "--", *command(QEMU, 4), "-S"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        os.kill(started(process.pid), signal.SIGSEGV)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "ended     by itself (signal 11)" in out
    assert "QEMU was ended by signal 11" in out
    assert "use of a translation was found" not in out


@on_machine
def test_a_qemu_that_cannot_begin_is_a_failure(tmp_path: Path) -> None:
    words = ("flushes", "--json", "--", *command(QEMU, 4), "-kernel", "/absent")
    code, out, errors = run(*words, cwd=tmp_path)
    assert (code, json.loads(out)["verdict"]) == (3, "failed")
    assert "QEMU ended with exit code 1 before the guest executed anything" in errors


@on_machine
def test_a_machine_with_more_processors_than_are_followed_is_refused(tmp_path: Path) -> None:
    words = ("-M", "q35", "-smp", "80", "-display", "none", "-nodefaults", "-S")
    code, _, errors = run("flushes", "--", QEMU, *words, cwd=tmp_path)
    assert (code, "more than 64 processors" in errors) == (3, True)


def test_the_deadline_that_help_shows_is_the_default() -> None:
    assert signature(flushes).parameters["deadline"].default == DEADLINE


def test_a_qemu_on_which_the_plugin_was_not_yet_run_is_named() -> None:
    def run_on(major: int, minor: int, micro: int) -> str:
        totals = {"major": major, "minor": minor, "micro": micro}
        seen = Watched(Report("", totals, ()), Ending.LIMIT, 0, 1.0)
        return "".join(Flushes("x86", seen, ()).not_run_on)

    assert "QEMU 10.1.2: the plugin checked itself, but was not yet run" in run_on(10, 1, 2)
    assert run_on(7, 2, 22) == run_on(8, 2, 2) == ""


def test_what_was_not_checked_is_no_result() -> None:
    totals = {"processors": 1, "paged": 1, "unfollowed": 0, "state": 0}
    seen = Watched(Report("", totals, ()), Ending.LIMIT, 0, 1.0)
    assert "could not check itself" in str(Flushes("x86", seen, ()).unwatched)


def test_ctrl_c_before_the_plugin_is_loaded_is_no_failure_of_qemu(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "harness", "flushes", "--"]
    qemu = program(tmp_path, "kill -INT $PPID; exec sleep 60")
    with subprocess.Popen([*words, str(qemu)], cwd=ROOT, stderr=subprocess.PIPE) as process:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"pagetable: interrupted.\n")


def test_qemu_has_the_files_that_its_command_line_names(tmp_path: Path) -> None:
    mine, theirs = os.pipe()
    os.write(theirs, b"handed on\n")
    qemu = program(tmp_path, f"exec head -n 1 /dev/fd/{mine}")
    words = [sys.executable, "-m", "harness", "flushes", "--", str(qemu)]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, pass_fds=[mine], text=True
    ) as process:
        out, _ = process.communicate(timeout=60)
    os.close(mine)
    os.close(theirs)
    assert out == "handed on\n"


@on_machine
def test_the_guest_of_this_project_forgets_no_flush(tmp_path: Path) -> None:
    """What it does to its tables at the harness's word: each access of the matrix after a change,
    its code in a window of the tested tables, RAM and sockets that were opened by another."""
    watching = f'"{sys.executable}" -m harness flushes --fail-on stale --report {tmp_path}/$$ --'
    qemu = program(tmp_path, f'cd "{ROOT}" && exec {watching} {QEMU} "$@"')
    where = "level=1 and access=write and A=1 and RW=1"
    words = ("--mode", 4, "--jobs", 1, "--engine", "tcg", "--qemu", qemu, "--where", where)
    code, out, errors = run("matrix", *words, cwd=tmp_path)
    assert (code, "accesses agree" in out, errors) == (0, True, "")
    reports = [json.loads(path.read_text()) for path in tmp_path.glob("*/flushes.json")]
    assert {told["verdict"] for told in reports} == {"none"}
    assert max(told["seen"]["narrowed"] for told in reports) > 1000


def test_what_loads_no_plugin_is_a_failure_with_its_exit_code(tmp_path: Path) -> None:
    code, out, errors = run("flushes", "--", program(tmp_path, "exit 7"), cwd=tmp_path)
    assert (code, out) == (3, "")
    assert "QEMU ended with exit code 7 and has not loaded the plugin" in errors


BEHIND = """sleep 60 &
echo $! > one
setsid sleep 60 &
echo $! > other
wait"""
"""A script that has started two processes, one of them in a session of its own."""


def ended(directory: Path) -> bool:
    """Whether both processes of BEHIND have ended."""
    pids = [(directory / name).read_text().strip() for name in ("one", "other")]
    stats = [Path(f"/proc/{pid}/stat") for pid in pids]
    return not any(stat.exists() and ") Z " not in stat.read_text() for stat in stats)


def test_the_limit_ends_what_loads_no_plugin_and_all_that_is_behind_it(tmp_path: Path) -> None:
    began = time.monotonic()
    code, out, errors = run("flushes", "--limit", 1, "--", program(tmp_path, BEHIND), cwd=tmp_path)
    assert (code, out) == (3, "")
    assert "QEMU was ended by the time limit and has not loaded the plugin" in errors
    assert time.monotonic() - began < 30
    assert ended(tmp_path)


def test_what_ignores_sigterm_is_ended_too(tmp_path: Path) -> None:
    script = program(tmp_path, f"trap '' TERM\n{BEHIND}")
    assert run("flushes", "--limit", 1, "--", script, cwd=tmp_path)[0] == 3
    assert ended(tmp_path)


def test_what_a_script_leaves_behind_is_ended(tmp_path: Path) -> None:
    script = program(tmp_path, BEHIND.removesuffix("wait"))
    assert run("flushes", "--", script, cwd=tmp_path)[0] == 3
    assert ended(tmp_path)


def test_sigterm_ends_what_is_behind_a_script(tmp_path: Path) -> None:
    with running("flushes", "--", program(tmp_path, BEHIND), cwd=tmp_path) as process:
        clock = Clock(process.pid)
        while not (tmp_path / "other").exists() or not (tmp_path / "other").read_text():
            assert clock.now() < 20
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == 130
    assert ended(tmp_path)


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "-1"])
def test_a_limit_that_is_no_time_is_refused(tmp_path: Path, limit: str) -> None:
    code, out, errors = run("flushes", "--limit", limit, "--", "true", cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert limit in errors.lower()
    assert not [*tmp_path.iterdir()]

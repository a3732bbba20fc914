from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.architectures import NAMES, USUAL
from harness.check.layouts import shipped
from harness.check.x86 import probes, quirks
from harness.machine.x86.registry import ENGINES
from harness.paging.x86.access import Vector
from harness.paging.x86.bulk import Outcomes, outcomes
from tests.cli.commands import ROOT, gone, guest_of, run, running

KEYS = {
    *("arch", "engine", "qemu", "layouts", "compared", "disagreements", "quirks", "not_comparable"),
    *("version", "command", "skipped", "news", "seconds", "failure", "not_run_on"),
}

BROKEN = "title = 'no end\n"
OVERLAP = """
title = "One page twice"
levels = [4]
ram = "64M"
[[map]]
virtual = 0x1000
size = "4K"
[[map]]
virtual = 0x1000
size = "4K"
"""


def wrong(*question: Any) -> Outcomes:
    """The reference, but that it takes every page fault of the user for one of the supervisor."""
    told = outcomes(*question)
    faults = told.vector == Vector.PF
    return replace(told, error=np.where(faults, told.error & ~np.uint32(4), told.error))


@pytest.fixture
def wrong_error_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "outcomes", wrong)


@pytest.mark.hw
def test_where_all_agree_the_code_is_0_and_no_file_is_written(tmp_path: Path) -> None:
    code, output, errors = run("validate", "smallest", "--engine", "tcg", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "answers agree on tcg, QEMU " in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.hw
def test_json_is_one_object_and_nothing_else(tmp_path: Path) -> None:
    command = ("validate", "malformed", "--engine=tcg", "--levels=5", "--json")
    code, output, errors = run(*command, cwd=tmp_path)
    told = json.loads(output)
    assert (code, errors, set(told)) == (0, "", KEYS)
    assert [(one["layout"], one["levels"]) for one in told["layouts"]] == [("malformed", 5)]
    assert told["compared"] == sum(one["compared"] for one in told["layouts"][0]["oracles"])
    assert told["quirks"]["tcg-reserved-bit-fault-lacks-p"] > 0


@pytest.mark.hw
def test_a_quirk_is_listed_with_its_count_and_its_citation(tmp_path: Path) -> None:
    _, output, _ = run("validate", "without-nxe", "--engine=tcg", "--levels=4", cwd=tmp_path)
    assert "tcg-reserved-bit-fault-lacks-p: " in output
    assert "(SDM volume 3A, 4.7)" in output


@pytest.mark.hw
def test_a_report_has_json_and_junit_with_engine_and_versions_and_a_page(tmp_path: Path) -> None:
    files = ("--report=out", "--html=run.html")
    code, _, _ = run("validate", "smallest", "--engine=tcg", *files, cwd=tmp_path)
    assert code == 0
    assert "answers agree on tcg, QEMU " in (tmp_path / "run.html").read_text()
    assert set(json.loads((tmp_path / "out" / "report.json").read_text())) == KEYS
    suite = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "0")
    head = {one.get("name"): one.get("value") for one in suite.iterfind("properties/property")}
    assert head["engine"] == "tcg"
    assert head["qemu"]
    assert head["python"]


@pytest.mark.hw
def test_a_version_that_was_not_yet_run_is_named_in_every_report_and_no_reason_for_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {name: replace(one, runs=((7, 2),)) for name, one in quirks.KNOWN.items()}
    monkeypatch.setattr(quirks, "KNOWN", older)
    command = ("validate", "smallest", "--engine=tcg", "--levels=5")
    code, output, errors = run(*command, "--report=out", "--html=run.html", cwd=tmp_path)
    assert (code, errors) == (0, "")
    junit = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    head = {one.get("name"): str(one.get("value")) for one in junit.iterfind("properties/property")}
    sentence = f"tcg {head['qemu']}: not yet run on this version; runs of: 7.2"
    assert f"\nNot yet run\n{sentence}\n" in output
    assert head["not_run_on"] == sentence
    assert json.loads((tmp_path / "out" / "report.json").read_text())["not_run_on"] == [sentence]
    assert f'<p class="note">{sentence}</p>' in (tmp_path / "run.html").read_text()


@pytest.mark.hw
@pytest.mark.usefixtures("wrong_error_codes")
def test_a_disagreement_is_shown_with_its_walk_and_kept_as_a_case(tmp_path: Path) -> None:
    command = ("validate", "smallest", "--engine=tcg", "--levels=4")
    code, output, _ = run(*command, cwd=tmp_path)
    assert code == 1
    assert "smallest, 4 levels, tcg, QEMU " in output
    for line in ("  expected  #PF(", "  observed  #PF(", "  walk      level  entry  slot"):
        assert line in output
    saved = sorted(tmp_path.glob("build/cases/*.json"))
    assert len(saved) == 5
    assert f"pagetable replay {saved[0].relative_to(tmp_path)}" in output
    answers = output.partition("What every engine says\n\n")[2].split("\n\n")
    assert len(answers) == 5
    for one in answers:
        asked, *said = one.splitlines()
        assert re.match("smallest, 4 levels, tcg, QEMU [0-9.]+, probe: user ", asked)
        assert [re.match("  on (tcg|kvm|bochs)", line) is not None for line in said] == [True] * 3
        assert re.match(r"  on tcg [0-9.]+ +#PF\(", said[0])


@pytest.mark.hw
def test_a_case_disagrees_when_replayed_until_the_fault_is_gone(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "outcomes", wrong)
        run("validate", "smallest", "--engine=tcg", "--levels=4", cwd=tmp_path)
        case = next(tmp_path.glob("build/cases/smallest-4-tcg-probe-user-*.json"))
        code, output, _ = run("replay", case, cwd=tmp_path)
        assert code == 1
        assert "They disagree now:\n  expected  #PF(" in output
    code, output, _ = run("replay", case, cwd=tmp_path)
    assert code == 0
    assert "They agree now." in output


@pytest.mark.hw
@pytest.mark.usefixtures("wrong_error_codes")
def test_a_report_keeps_the_cases_and_the_failures(tmp_path: Path) -> None:
    command = ("validate", "smallest", "--engine=tcg", "--levels=4", "--json", "--report=out")
    code, output, _ = run(*command, cwd=tmp_path)
    assert code == 1
    told = json.loads(output)
    assert told["disagreements"] > 5
    found = told["layouts"][0]["findings"]
    assert {tmp_path / one["case"] for one in found} == set(tmp_path.glob("out/smallest-*.json"))
    assert all(one["walk"] for one in found if one["address"] != "0x0")
    assert {one["answers"][0]["agrees"] for one in found} == {False}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == told
    suite = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert suite.get("failures") == "1"
    assert "expected  #PF(" in str(suite.findtext("testcase/failure"))


def no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the device of KVM away."""
    kvm = replace(ENGINES["kvm"], device=tmp_path / "kvm")
    monkeypatch.setattr("harness.machine.x86.registry.ENGINES", {**ENGINES, "kvm": kvm})


@pytest.mark.hw
def test_an_engine_that_cannot_run_is_misuse_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_device(tmp_path, monkeypatch)
    code, output, errors = run("validate", "smallest", "--engine=kvm", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith("pagetable: kvm cannot run here: There is no ")


@pytest.mark.parametrize("command", ["validate", "matrix", "rules"])
def test_where_no_engine_runs_there_is_a_line_for_each(tmp_path: Path, command: str) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\nexit 1\n")
    qemu.chmod(0o755)
    code, output, errors = run(command, "--qemu", qemu, cwd=tmp_path)
    assert (code, output) == (2, "")
    first, second = errors.splitlines()
    assert first.startswith("pagetable: tcg cannot run here: QEMU did not start")
    assert second.startswith("pagetable: kvm cannot run here: ")


def test_of_what_is_missing_qemu_is_named_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without setpriv and sh too
    no_device(tmp_path, monkeypatch)
    for engine in ("auto", "tcg", "kvm"):
        code, output, errors = run(
            "validate", "smallest", "--engine", engine, "--qemu", "qemu", cwd=tmp_path
        )
        assert (code, output) == (2, "")
        assert errors.startswith("pagetable: QEMU is not installed, or not in PATH as qemu: ")
        assert errors.count("\n") == 1
    (tmp_path / "qemu").touch(0o755)
    code, _, errors = run("validate", "smallest", "--engine=tcg", "--qemu=qemu", cwd=tmp_path)
    assert code == 2
    assert errors == (
        "pagetable: tcg cannot run here: setpriv is not in PATH: install util-linux\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-layout"], "no layout is called 'no-such-layout': choose one"),
        (["broken.toml"], "broken.toml is not TOML: "),
        (["missing.toml"], "missing.toml cannot be read: No such file or directory"),
        (["edges-48", "--levels=5"], "edges-48 is written for 4 levels, not 5."),
        (["--levels=6"], "no layout is written for 6 levels: choose 4 or 5."),
        (["smallest", "--engine=abacus"], "there is no engine 'abacus': choose one of tcg, kvm"),
        (["smallest", "--engine=tcg", "--qemu=/nope"], "QEMU is not installed, or not in PATH as"),
        (["smallest", "--qemu=/nope"], "QEMU is not installed, or not in PATH as /nope: install"),
        (["--arch=mips"], "there is no architecture 'mips': choose x86 or riscv"),
        (["--arch=all", "--qemu=qemu"], "--qemu is of one architecture: name that with --arch"),
        (["--arch=all", "--levels=4"], "--levels is of one architecture: name that with --arch"),
        (["--mode=sv39"], "is not of x86: choose --levels 4 or 5; --arch riscv has sv39"),
        (["--arch=riscv", "--mode=sv40"], "riscv has no mode 'sv40': choose one of sv32, sv39"),
        (["--arch=riscv", "--mode=Sv39", "--levels=4"], "sv39 has 3 levels, not 4"),
        (["--arch=riscv", "--levels=6"], "no layout is written for 6 levels: choose 2, 3, 4 or 5"),
        (["--arch=riscv", "--engine=kvm"], "there is no engine 'kvm' for riscv: choose one of tcg"),
        (
            ["--arch=riscv", "--qemu=/nope"],
            "QEMU is not installed, or not in PATH as /nope: install",
        ),
        (["--arch=riscv", "--bochs=bochs"], "--bochs has no use: QEMU alone runs riscv"),
        (["--arch=riscv", "--thorough"], "--thorough has no use: QEMU's monitor is asked about"),
        (["--arch=riscv", "linux-4"], "no layout is called 'linux-4'"),
        (["--arch=x86", "riscv/rights"], "rights is written for riscv: say --arch riscv"),
        (
            ["rights", "riscv/rights"],
            "rights is written for x86, rights for riscv: validate those of one architecture at a"
            " time",
        ),
        (["--arch=riscv", "x86/rights"], "rights is written for x86: say --arch x86"),
        (["smallest", "--bochs=/nope"], "Bochs is not installed, or not in PATH as /nope: install"),
        (
            ["smallest", "--report=broken.toml"],
            "broken.toml cannot hold a report: it is not a folder",
        ),
        (
            ["smallest", "--report=broken.toml/deep"],
            "broken.toml/deep cannot hold a report: Not a directory",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_is_one_sentence_and_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "broken.toml").write_text(BROKEN)
    code, output, errors = run("validate", *arguments, cwd=tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith("pagetable: ")
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arch", NAMES)
def test_a_file_says_for_which_architecture_it_is_written(tmp_path: Path, arch: str) -> None:
    copied = shutil.copy(next(one for one in shipped(arch) if one.stem == "smallest"), tmp_path)
    for named in (Path(copied).name, f"{arch}/smallest"):
        code, _, errors = run("validate", named, "--engine=none", cwd=tmp_path)
        assert code == 2
        of = "" if arch == USUAL else f" for {arch}"
        assert errors.startswith(f"pagetable: there is no engine 'none'{of}: choose")


@pytest.mark.hw
def test_a_layout_that_cannot_be_built_is_misuse_and_named(tmp_path: Path) -> None:
    (tmp_path / "overlap.toml").write_text(OVERLAP)
    code, _, errors = run("validate", "overlap.toml", "--engine=tcg", cwd=tmp_path)
    assert code == 2
    assert errors.startswith("pagetable: overlap at 4 levels: overlap.toml, map 2: ")
    assert errors.count("\n") == 1


def test_an_unknown_option_is_misuse(tmp_path: Path) -> None:
    code, _, errors = run("validate", "--colour", cwd=tmp_path)
    assert code == 2
    assert "No such option: --colour" in errors


@pytest.mark.hw
def test_a_guest_that_is_lost_is_code_3_and_its_evidence_is_kept(tmp_path: Path) -> None:
    with running("validate", "aliases", "--engine=tcg", "--levels=4", cwd=tmp_path) as process:
        os.kill(guest_of(process), signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert errors.startswith("pagetable: aliases at 4 levels: ")
    assert errors.count("\n") == 1
    assert "and then the machine failed" in output
    assert "SIGKILL" in (tmp_path / "build" / "cases" / "failure.txt").read_text()


@pytest.mark.hw
def test_a_worker_that_is_killed_is_a_machine_failure(tmp_path: Path) -> None:
    with running("validate", "aliases", "--engine=tcg", "--levels=4", cwd=tmp_path) as process:
        guest = guest_of(process)
        parent = int(Path(f"/proc/{guest}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "aliases at 4 levels" in errors
    assert gone(guest)


@pytest.mark.hw
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)]
)
def test_no_guest_survives_the_end_of_the_command(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    with running("validate", "aliases", "--engine=tcg", cwd=tmp_path) as process:
        guest = guest_of(process)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors == ("pagetable: interrupted.\n" if sent is signal.SIGINT else "")
    assert gone(guest)


@pytest.mark.hw
def test_four_at_once_do_not_meet(tmp_path: Path) -> None:
    command = ("validate", "smallest", "--engine=tcg", "--levels=5")
    with contextlib.ExitStack() as all_four:
        four = [all_four.enter_context(running(*command, cwd=tmp_path)) for _ in range(4)]
        ends = [(one.communicate(timeout=60)[1], one.returncode) for one in four]
    assert ends == [("", 0)] * 4


@pytest.mark.hw
def test_a_report_on_a_full_disk_is_a_failure_after_all_was_shown(tmp_path: Path) -> None:
    """In a mount namespace of its own, where the directory of the report is a full disk."""
    unshare = ["unshare", "--mount", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this host allows no mount namespaces, so no disk can be filled")
    fill = "mount -t tmpfs -o size=4k none full; cat /dev/zero > full/x 2> x"
    command = f"{sys.executable} -m harness validate smallest --engine=tcg --report=full"
    (tmp_path / "full").mkdir()
    ended = subprocess.run(
        [*unshare, "sh", "-c", f"{fill}; {command}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3
    assert "answers agree" in ended.stdout
    assert ended.stderr == "pagetable: nothing more can be written: No space left on device\n"


@pytest.mark.parametrize("command", ["validate", "replay", "matrix", "rules"])
def test_help_shows_an_example(tmp_path: Path, command: str) -> None:
    code, output, _ = run(command, "--help", cwd=tmp_path)
    assert code == 0
    assert f"Example: pagetable {command}" in " ".join(output.split())


def test_help_tells_the_commands_and_the_exit_codes(tmp_path: Path) -> None:
    code, output, _ = run("--help", cwd=tmp_path)
    assert code == 0
    assert "Exit codes: 0 all agree, 1 a disagreement, 2 misuse" in " ".join(output.split())


def test_help_loads_nothing_that_commands_work_with() -> None:
    code = "import harness.cli, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

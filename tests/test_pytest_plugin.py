"""The plugin as another project meets it: each test runs pytest on a small project of its own."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest

pytest_plugins = ["pytester"]

TWO_PAGES = """
    from harness.paging.address import Virtual

    def test_two_pages(space, prove):
        write = space.format.granting("write")
        space.map(Virtual(0x400000), space.frames(2), level=0, bits=write)
        assert len(prove(space.cpu)) == 6
"""

WRONG_MODEL = """
    from dataclasses import replace
    import numpy as np
    from harness.paging.address import Virtual

    def test_a_model_with_narrow_addresses(space, prove):
        far = np.array([1 << 37], np.uint64)
        space.map(Virtual(0x400000), far, level=0, bits=space.format.granting())
        prove(replace(space.cpu, maxphyaddr=36))
"""

LOST = """
    import os, signal

    def test_a_guest_that_is_killed(guest):
        os.kill(guest.pid, signal.SIGKILL)

    def test_the_next_one(guest):
        assert guest.monitor.status() == "running"
        guest.close()

    def test_the_one_after(space, guest, prove):
        prove(space.cpu)
        print("qemu", guest.pid)
"""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


@pytest.mark.hw
def test_a_disagreement_fails_the_test_with_both_answers_and_the_walk(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(WRONG_MODEL)
    result = run(pytester, "--engine=tcg", "-k4-level")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*prove(replace(space.cpu, maxphyaddr=36))*",
            "*answers disagree on tcg",
            "*probe: supervisor read at 0x400000",
            "*expected*reserved bits*",
            "*observed*",
            "*walk*level*entry*slot*raw*meaning*bits*rights so far",
            "*0 *PTE*0x8000002000000001*reserved: 0x2000000000 beyond MAXPHYADDR 36*",
        ]
    )


@pytest.mark.hw
def test_a_guest_that_was_lost_is_replaced_and_none_is_left(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LOST)
    result = run(pytester, "-rP", "--engine=tcg")
    result.assert_outcomes(passed=4)
    pids = [line.split()[1] for line in result.outlines if line.startswith("qemu ")]
    assert len(pids) == 2
    alive = subprocess.run(["ps", "-o", "comm=", "-p", ",".join(pids)], stdout=subprocess.PIPE)
    assert b"qemu" not in alive.stdout


@pytest.mark.hw
@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "xdist"])
def test_a_space_is_proved_at_both_levels_and_the_report_s_head_has_engine_and_versions(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester, "-v", "--engine=tcg", "--junit-xml=report.xml", *workers)
    result.assert_outcomes(passed=2)
    passed = [line for line in result.outlines if "PASSED" in line]
    assert [any(f"[tcg-{n}-level]" in line for line in passed) for n in (4, 5)] == [True, True]
    head = ElementTree.parse(pytester.path / "report.xml").find("testsuite/properties")
    assert head is not None
    values = {one.get("name"): str(one.get("value")) for one in head}
    assert "QEMU " in values["engine tcg"]
    assert {"python", "numpy", "machine"} <= set(values)


def test_an_engine_that_is_absent_is_skipped_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEMU", "/nope")
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester)
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["pagetable: 2 skipped: tcg cannot run here: /nope *"])


def test_an_engine_that_was_asked_for_must_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester, "--engine=tcg", "--qemu=/nope")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["tcg was asked for, and cannot run here: /nope *"])


def test_an_unknown_engine_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TWO_PAGES)
    result = run(pytester, "--engine=abacus")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: there is no engine 'abacus': choose tcg or kvm"])


def test_a_project_without_such_tests_pays_nothing() -> None:
    code = "import harness.pytest_plugin, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The fixture `flushes`, as another project uses it."""

from __future__ import annotations

import os

import pytest

from tests.flushes.guests import SHORT, command

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.hw

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")

TEST = """
    def test_mine(flushes):
        seen = flushes({command!r}, {options})
        assert seen.exit_code == 1
"""


def outcome(
    pytester: pytest.Pytester, command: list[str], options: str, passed: bool = False
) -> str:
    """What is printed of the one test, which fails, unless it should pass."""
    pytester.makepyfile(TEST.format(command=command, options=options))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=passed, failed=not passed)
    return str(result.stdout)


def test_a_kernel_that_flushes_as_it_should_passes(pytester: pytest.Pytester) -> None:
    outcome(pytester, command(QEMU, 4, wanted="legal"), 'fail_on="stale"', passed=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("limit=float('nan')", "a limit of nan seconds is none"),
        ("limit=0", "a limit of 0 seconds is none"),
        ("deadline=0", "a deadline of 0 blocks is none"),
        ("fail_on='never'", "there is no 'never' to fail on"),
        ("symbols=__import__('pathlib').Path('absent')", "absent cannot be read"),
    ],
)
def test_misuse_is_a_sentence(pytester: pytest.Pytester, options: str, sentence: str) -> None:
    told = outcome(pytester, [QEMU], options)
    assert sentence in told
    assert "Traceback" not in told


def test_a_kernel_that_forgets_a_flush_fails(pytester: pytest.Pytester) -> None:
    told = outcome(pytester, command(QEMU, 4), f"deadline={SHORT}")
    assert "A flush is missing: 13 late uses" in told
    assert "1. supervisor read at 0x400000001000" in told


def test_a_guest_that_never_runs_was_not_watched(pytester: pytest.Pytester) -> None:
    told = outcome(pytester, [*command(QEMU, 4), "-S"], "limit=2")
    assert "executed nothing under TCG" in told


def test_a_guest_on_the_processor_of_the_host_is_refused(pytester: pytest.Pytester) -> None:
    assert "no plugin sees" in outcome(pytester, [QEMU, "-enable-kvm"], "")


def test_ctrl_c_ends_the_session_not_the_test_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from harness.machine import plugin
        from harness.machine.plugin import Ending, Report, Watched

        def interrupted(*_, **__):
            return Watched(Report("", {}, ()), Ending.INTERRUPT, 0, 1.0)

        plugin.watched = interrupted

        def test_mine(flushes):
            flushes(["qemu"])

        def test_next():
            pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes()

"""The plugin reports of RISC-V's bare-metal cases what the manual says of each, and a rule that is
broken in it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.machine.errors import MachineError
from tests.cli.commands import run
from tests.flushes.guests import PLUGIN, SHORT, asked, command, made, own_plants, plants, ran, rules
from tests.machine.riscv.present import program, why_absent

MODES = ("sv32", "sv39", "sv48", "sv57")
ON_TWO = {"no-shootdown", "shootdown", "no-shootdown-user"}
WIDE_ALONE = {"napot-moved-other-part", "sinval", "unmap-vector"}

SHOWN = {
    "FENCE_DROPS_NOTHING": {"move-fence": "late", "move-fence-all": "stale"},
    "FENCE_DROPS_ALL": {"move-fence-neighbour": "legal"},
    "FENCE_SPARES_LARGE": {"large-moved-fence-in-it": "stale"},
    "FENCE_DROPS_STRUCTURES": {"table-moved-fence": "legal"},
    "FENCE_OF_SPACE_DROPS_GLOBAL": {"global-fence-space": "legal"},
    "FENCE_OF_PAGE_DROPS_GLOBAL": {"global-fence-page-of-space": "legal"},
    "FENCE_IGNORES_SPACE": {
        "move-fence-other-space": "legal",
        "move-fence-page-of-other-space": "legal",
    },
    "FENCE_ALL_SPARES_GLOBAL": {"global-fence-all": "stale"},
    "FENCE_ALL_SPARES_STRUCTURES": {"table-moved-fence-all": "stale"},
    "SATP_DROPS_ALL": {"move-satp": "legal", "other-root": "legal"},
    "SPACES_ARE_ONE": {"move-other-space": "stale", "other-root-other-space": "stale"},
    "NO_GLOBAL": {"global-other-space": "legal"},
    "GLOBAL_OF_LEAVES_ALONE": {"global-by-table": "legal"},
    "NO_READ": {"execute-only": "legal"},
    "NO_WRITE": {"read-only": "legal"},
    "NO_USER": {"user-denied": "legal"},
    "NO_EXECUTE": {"code-not-executable": "legal"},
    "SUM_IGNORED": {"given-to-user": "legal"},
    "MXR_IGNORED": {"execute-only-mxr": "stale"},
    "MPRV_IGNORED": {"move-mprv": "legal"},
    "SUPERVISOR_FETCHES_USERS": {"code-given-to-user": "legal"},
    "NAPOT_IGNORED": {"napot-moved-other-part": "legal"},
    "FAULT_DROPS": {"move-fault": "legal"},
    "SINVAL_AT_ONCE": {"sinval-not-ended": "legal"},
    "SINVAL_NEEDS_NO_ORDER": {"sinval-not-ordered": "legal"},
    "SINVAL_IGNORED": {"sinval": "stale", "sinval-by-machine": "stale"},
    "THREADS_WITHOUT_TP": {"move-other-thread": "late"},
    "NO_ROOT": {
        "other-root-user": "legal"
    },  # that is, like the one before, of which it is one more
    "NO_STRUCTURES": {"table-moved-other-page": "legal", "table-gone-other-page": "legal"},
    "NO_FETCH": {"code-moved": "legal"},
    "NO_DENIED": {"unmap-fence-neighbour": "legal"},
    "DIRTY_IGNORED": {"move-write-clean": "stale"},
    "PASSED_WITHOUT_WALK": {"move-and-widen": "stale"},
    "LESS_TAKEN_OVER": {"read-only-read-write": "legal"},
    "WIDENING_COUNTS": {"given-to-user-sum": "stale"},
    "OTHER_BITS_COUNT": {"software-bits": "stale"},
    "SIZE_COUNTS": {"split-in-place": "stale"},
    "NO_LATE": {"move-user": "stale", "deadline": "stale"},
}
"""What each broken rule makes of cases, some of them all, in Sv39."""


def on_machine(xlen: int = 64) -> pytest.MarkDecorator:
    reason = why_absent(xlen)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


def qemu(mode: str) -> str:
    return program(32 if mode == "sv32" else 64)


@pytest.mark.hw
@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize(
    "mode", [pytest.param(one, marks=on_machine(32 if one == "sv32" else 64)) for one in MODES]
)
def test_each_case_is_reported_as_the_manual_has_it(mode: str, processors: int) -> None:
    seen = ran(qemu(mode), mode, processors)
    assert seen.found == seen.expected
    assert len(seen.expected) >= 85
    assert seen.expected.keys() >= ON_TWO if processors == 2 else "deadline" in seen.expected
    assert (seen.expected.keys() >= WIDE_ALONE) == (mode != "sv32")
    assert seen.flushes.totals["unexplained"] == 0
    assert seen.flushes.watched.exit_code == 1
    # By what is cached of a page of 64K, one walked through another of its sixteen entries.
    unknown = [cause for cause in seen.flushes.causes if None in (cause.was, cause.now)]
    assert [cause.change.after >> 63 for cause in unknown] == [1] * (mode != "sv32")


@pytest.mark.hw
@on_machine()
@pytest.mark.parametrize("plant", SHOWN)
def test_a_broken_rule_shows(plant: str) -> None:
    found = ran(program(64), "sv39", plant=plant)
    assert {name: found.found[name] for name in SHOWN[plant]} == SHOWN[plant]
    assert not [name for name, verdict in SHOWN[plant].items() if found.expected[name] == verdict]


@pytest.mark.hw
@on_machine()
def test_frames_that_are_not_compared_are_found_by_the_test_at_the_start() -> None:
    with pytest.raises(MachineError, match=r"cannot be watched: a walk with another frame"):
        ran(program(64), "sv39", plant="NO_FRAME")


@pytest.mark.hw
@on_machine()
def test_a_missing_fence_is_told_with_names_and_walks(tmp_path: Path) -> None:
    words = command(program(64), "sv39")
    code, out, errors = run("flushes", "--deadline", SHORT, "--", *words, cwd=tmp_path)
    assert (code, "Traceback" in errors) == (1, False)
    assert "changed   satp: 0x8000100000" in out
    assert "which has another root, by processor 0 at 0x80" in out
    assert "by SFENCE.VMA for all" in out
    assert "SFENCE.VMA for the ASID" in out and " writes of satp" in out
    assert "A flush is missing: 10 late uses of what was cached before a change" in out


@pytest.mark.hw
@on_machine()
def test_a_kernel_that_fences_as_it_should_passes(tmp_path: Path) -> None:
    words = command(program(64), "sv39", wanted="l")
    code, out, _ = run("flushes", "--fail-on", "stale", "--", *words, cwd=tmp_path)
    assert (code, "No stale use of a translation was found, among 2 changes" in out) == (0, True)


def test_every_rule_has_a_case_that_shows_where_it_is_broken() -> None:
    broken = {name for cases in SHOWN.values() for name in cases}
    told = rules("### RISC-V")
    assert {rule for rule, cases in told.items() if not cases & broken} == set()
    assert broken <= set().union(*told.values())
    assert len(told) > 20
    assert set().union(*told.values()) <= made("riscv")


def test_every_rule_that_the_plugin_can_break_is_broken() -> None:
    own = asked(PLUGIN / "riscv")
    assert {*own_plants("riscv")} <= own <= {*plants("riscv")}
    assert own <= SHOWN.keys()

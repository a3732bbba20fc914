"""The plugin reports of the bare-metal cases what the manual says of each, and a rule that is
broken in it shows."""

from __future__ import annotations

import os
import tempfile

import pytest

from harness.check.flushes import RESTORED, UNTOLD, Cached, FailOn
from harness.machine.errors import MachineError
from harness.machine.plugin import Ending, watched
from harness.report.flushes import lines
from tests.flushes.guests import PLUGIN, asked, command, made, plants, ran, rules

pytestmark = pytest.mark.hw

MODES = {2: "32-bit", 3: "PAE", 4: "4-level", 5: "5-level"}

ON_TWO = {"no-shootdown", "shootdown", "no-shootdown-user"}
"""What needs two processors."""

SHOWN = {
    "INVLPG_DROPS_NOTHING": (4, {"move-invlpg": "late"}),
    "INVLPG_DROPS_ALL": (4, {"move-invlpg-neighbour": "legal"}),
    "INVLPG_SPARES_GLOBAL": (4, {"global-invlpg": "stale"}),
    "INVLPG_SPARES_STRUCTURES": (4, {"table-moved-invlpg-other-page": "stale"}),
    "INVLPG_SPARES_LARGE": (4, {"large-moved-invlpg-in-it": "stale"}),
    "INVLPG_WITHOUT_SEGMENT": (4, {"invlpg-fs": "stale"}),
    "CR3_DROPS_NOTHING": (4, {"move-cr3": "stale"}),
    "CR3_DROPS_GLOBAL": (4, {"global-cr3": "legal"}),
    "CR3_SPARES_STRUCTURES": (4, {"table-moved-cr3-other-page": "stale"}),
    "PGE_DROPS_NOTHING": (4, {"global-pge": "stale"}),
    "PG_DROPS_NOTHING": (5, {"paging-off": "stale"}),
    "SMEP_DROPS_NOTHING": (4, {"smep": "stale"}),
    "TASK_SWITCH_DROPS_NOTHING": (2, {"task-switch": "stale"}),
    "FAULT_DROPS_NOTHING": (4, {"fault-drops": "stale"}),
    "FAULT_SPARES_STRUCTURES": (4, {"table-fault-drops": "stale"}),
    "GLOBAL_WITHOUT_PGE": (4, {"global-without-pge": "stale"}),
    "NO_WRITE": (4, {"read-only": "legal"}),
    "NO_USER": (4, {"user-denied": "legal"}),
    "NO_EXECUTE": (4, {"code-nx": "legal"}),
    "WP_IGNORED": (4, {"read-only-without-wp": "stale"}),
    "DIRTY_IGNORED": (4, {"move-write-clean": "stale"}),
    "NO_STRUCTURES": (4, {"table-moved-other-page": "legal", "table-gone-other-page": "legal"}),
    "NO_REGISTERS": (3, {"pdpte-moved": "legal"}),
    "REGISTERS_STAY": (3, {"pdpte-moved-cr3": "stale"}),
    "NO_SECOND_PAGE": (4, {"across": "legal"}),
    "NO_FETCH": (4, {"code-moved": "legal", "code-nx": "legal"}),
    "NO_DENIED": (4, {"table-gone-other-page": "legal"}),
    "WIDENING_COUNTS": (4, {"set-user": "stale"}),
    "SIZE_COUNTS": (4, {"split-in-place": "stale"}),
    "OTHER_BITS_COUNT": (4, {"available-bits": "stale"}),
    "NO_LATE": (4, {"move-user": "stale", "deadline": "stale"}),
    "NO_DEADLINE": (4, {"deadline": "stale"}),
    "ALWAYS_LATE": (4, {"move": "late"}),
    "ROOT_COUNTS": (4, {"global-other-root": "stale"}),
    "SIZE_STAYS": (4, {"split-in-place-write": "stale"}),
    "OLD_PLACE": (4, {"changed-by-window": "legal"}),
    "MOV_CR2_FAULTS": (4, {"unmap-cr2": "denied"}),
    "WP_LOADS_REGISTERS": (3, {"pdpte-moved-wp": "legal"}),
    "SMEP_KEEPS_REGISTERS": (3, {"pdpte-moved-smep": "stale"}),
    "SMEP_SPARES_GLOBAL": (4, {"smep-global": "stale"}),
    "NO_SECOND_FETCH": (4, {"code-across": "legal"}),
    "THREADS_WITHOUT_FS": (4, {"move-other-thread": "late"}),
    "ROOTS_WITHOUT_PAIRS": (4, {"move-user-paired-root": "stale"}),
    "PAE_DROPS_NOTHING": (2, {"pae": "stale"}),
    "PSE36_IGNORED": (2, {"large-moved-by-4-gib": "legal"}),
    "NOT_TAKEN_OVER": (4, {"widen-and-narrow": "legal"}),
    "PASSED_WITHOUT_WALK": (4, {"move-and-widen": "stale"}),
    "CD_KEEPS_REGISTERS": (3, {"pdpte-moved-cd": "stale"}),
    "NW_KEEPS_REGISTERS": (3, {"pdpte-moved-nw": "stale"}),
    "PG_KEEPS_REGISTERS": (3, {"pdpte-moved-paging-off": "stale"}),
    "PAE_KEEPS_REGISTERS": (2, {"pdpte-moved-pae": "stale"}),
    "PGE_KEEPS_REGISTERS": (3, {"pdpte-moved-pge": "stale"}),
    "PSE_KEEPS_REGISTERS": (3, {"pdpte-moved-pse": "stale"}),
    "TASK_SWITCH_KEEPS_REGISTERS": (3, {"pdpte-moved-task-switch": "stale"}),
    "SMEP_IGNORED": (4, {"code-given-to-user": "legal"}),
    "PDPTES_ARE_CACHED": (3, {"pdpte-moved-cd-other-table": "stale"}),
    "SAME_FAULT_IGNORED": (4, {"fault-drops-again": "stale"}),
    "ANY_CONTROL_DROPS": (4, {"move-wp-and-tsd": "legal", "move-smep-cleared": "legal"}),
    "QUIET_FOLLOWED": (4, {"read-only-after-4097-stores": "late"}),
    "LESS_TAKEN_OVER": (
        4,
        {
            "read-only-read-write": "legal",
            "user-denied-after-read": "legal",
            "code-nx-read-code": "legal",
        },
    ),
    "STRUCTURES_WITH_RIGHTS": (
        4,
        {
            "table-widened-write": "stale",
            "table-widened-user": "late",
            "table-widened-execute": "stale",
        },
    ),
}
"""What each broken rule makes of cases, some of them all, and in which mode of paging."""


@pytest.fixture(scope="module")
def qemu() -> str:
    return os.environ.get("QEMU", "qemu-system-x86_64")


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("mode", MODES, ids=MODES.values())
def test_each_case_is_reported_as_the_manual_has_it(qemu: str, mode: int, processors: int) -> None:
    seen = ran(qemu, mode, processors)
    assert seen.found == seen.expected
    assert len(seen.expected) >= 60
    assert seen.expected.keys() >= ON_TWO if processors == 2 else "deadline" in seen.expected
    assert seen.flushes.totals["unexplained"] == 0
    assert seen.flushes.watched.exit_code == 1


def test_what_ended_entries_above_pages_and_registers_is_told(qemu: str) -> None:
    seen = ran(qemu, 3).flushes.causes
    ended = {
        (cause.cached.value, flush): count
        for cause in seen
        for flush, count in cause.flushed.items()
        if cause.cached is not Cached.TRANSLATION and count
    }
    assert ended == {
        ("structure", "invlpg"): 1,
        ("structure", "fault"): 1,
        ("register", "mov_cr3"): 1,
    }
    assert all(not cause.unflushed for cause in seen if cause.cached is not Cached.TRANSLATION)


def test_entries_that_the_tables_give_again_are_told(qemu: str) -> None:
    again = [cause for cause in ran(qemu, 4).flushes.causes if cause.flushed[RESTORED]]
    assert [(cause.entries, cause.flushed[RESTORED]) for cause in again] == [(1, 1)]


def test_the_end_of_a_few_stale_entries_is_told_and_that_of_others_is_not_known(qemu: str) -> None:
    [cause] = ran(qemu, 4, wanted="unlisted").flushes.causes
    told = {flush: count for flush, count in cause.flushed.items() if count}
    assert (cause.entries, told) == (300, {"mov_cr3": 256, UNTOLD: 44})


def test_the_oldest_translations_are_forgotten(qemu: str) -> None:
    seen = ran(qemu, 4, wanted="forgotten").flushes
    assert 65536 <= seen.totals["forgotten"] < 65536 + 1000
    assert "cached entries, which the plugin forgot" in "\n".join(lines(seen, FailOn.LATE))


@pytest.mark.parametrize("plant", SHOWN)
def test_a_broken_rule_shows(qemu: str, plant: str) -> None:
    mode, shown = SHOWN[plant]
    found = ran(qemu, mode, plant=plant)
    assert {name: found.found[name] for name in shown} == shown
    assert not [name for name in shown if found.expected[name] == shown[name]]


def test_tables_and_pages_above_4_gib_are_followed(qemu: str) -> None:
    seen = ran(qemu, 4, wanted="high", ram="5G")
    assert seen.found == seen.expected
    assert {"high-move": "stale", "high-unmap-user": "late"}.items() <= seen.expected.items()


def test_causes_for_which_there_is_no_room_are_counted(qemu: str) -> None:
    seen = ran(qemu, 4, wanted="many")
    totals = seen.flushes.totals
    assert (totals["uses"], len(seen.flushes.causes), totals["lost_causes"]) == (1500, 1024, 476)


def test_a_guest_that_resets_is_followed_until_it_ends(qemu: str) -> None:
    words = [word for word in command(qemu, 4, wanted="reset") if word != "-no-reboot"]
    with tempfile.TemporaryFile() as console:
        seen = watched(words, limit=60, stdout=console)
    assert (seen.ending, seen.exit_code, seen.report.totals["uses"]) == (Ending.ITSELF, 1, 0)
    assert seen.report.totals["mov_cr3"] == 4


def test_frames_that_are_not_compared_are_found_by_the_test_at_the_start(qemu: str) -> None:
    with pytest.raises(MachineError, match=r"cannot be watched: a walk with another frame"):
        ran(qemu, 4, plant="NO_FRAME")


def test_every_rule_has_a_case_that_shows_where_it_is_broken() -> None:
    broken = {name for _, cases in SHOWN.values() for name in cases}
    told = rules("### x86")
    assert {rule for rule, cases in told.items() if not cases & broken} == set()
    assert broken <= set().union(*told.values())
    assert len(told) > 30
    assert set().union(*told.values()) <= made("x86")


def test_every_rule_that_the_plugin_can_break_is_broken() -> None:
    assert asked(PLUGIN, PLUGIN / "x86") == {*plants("x86")[1:]} == {*SHOWN, "NO_FRAME"}

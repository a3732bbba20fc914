"""What is counted of comparisons, and the few disagreements that are kept in full."""

import numpy as np

from harness.check.compare import Answer, Comparison, Disagreement, answer_of
from harness.check.x86.verdicts import expected_text
from harness.paging.memory import BufferMemory
from harness.paging.x86.access import Kind
from harness.paging.x86.bulk import outcomes
from harness.paging.x86.cpu import Cpu


def test_a_comparison_begins_with_nothing() -> None:
    fresh = Comparison("probe")
    assert (fresh.oracle, fresh.compared, fresh.disagreed) == ("probe", 0, 0)
    assert not (fresh.disagreements or fresh.quirks or fresh.not_comparable or fresh.news)
    fresh.quirks["some"] += 1
    fresh.disagreements.append(Disagreement("probe", 0, None, "", ""))
    assert not Comparison("other").quirks and not Comparison("other").disagreements


def test_a_disagreement_is_of_one_question_without_a_walk_or_a_hint() -> None:
    found = Disagreement("probe", 0x1000, None, "this", "that")
    assert (found.count, found.walk, found.hint, found.flags) == (1, None, "", frozenset())


def test_all_disagreements_are_counted_and_the_examples_kept() -> None:
    comparison = Comparison("info tlb")
    one, other = (Disagreement("info tlb", at, None, "a", "b") for at in (0x1000, 0x2000))
    comparison.disagree(7, [one])
    comparison.disagree(2, [other])
    assert comparison.disagreed == 9
    assert comparison.disagreements == [one, other]
    assert not comparison.compared, "who asks counts the questions"


def test_an_engine_s_answer_is_that_to_the_last_question() -> None:
    """Of a sequence, in which an access before it may have disagreed too."""
    found = Comparison("probe")
    assert answer_of("tcg", "QEMU", found) == Answer("tcg", "QEMU", True, "as expected")
    found.quirks["some"] += 1
    departs = Answer("tcg", "QEMU", True, "departs, as some has it")
    assert answer_of("tcg", "QEMU", found) == departs
    for seen in "first", "last":
        found.disagree(1, [Disagreement("probe", 0x1000, None, "expected", seen)])
    assert answer_of("tcg", "QEMU", found) == Answer("tcg", "QEMU", False, "last")


def test_what_has_no_level_is_said_without_one() -> None:
    """An access that is refused before any entry is read."""
    cpu, memory = Cpu.long_mode(4, 0), BufferMemory(bytes(0x1000))
    for address, kind, said in (
        (1 << 63, Kind.READ, "#GP(0x0): the address is not canonical (volume 1, 3.3.7.1)"),
        (1 << 63, Kind.PUSH, "#SS(0x0): the address is not canonical (volume 1, 3.3.7.1)"),
        (0x1000, Kind.READ, "#PF(0x0) at level 3: the entry is not present (4.7)"),
    ):
        one = np.array([address], np.uint64), np.array([kind], np.uint8), np.array([False])
        rules = outcomes(cpu, memory, *one, np.array([False]))
        assert expected_text(rules, 0) == said

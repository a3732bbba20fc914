"""What is counted of comparisons, and the few disagreements that are kept in full."""

from harness.check.compare import Comparison, Disagreement


def test_a_comparison_begins_with_nothing() -> None:
    fresh = Comparison("probe")
    assert (fresh.oracle, fresh.compared, fresh.disagreed) == ("probe", 0, 0)
    assert not (fresh.disagreements or fresh.quirks or fresh.not_comparable or fresh.news)
    fresh.quirks["some"] += 1
    fresh.disagreements.append(Disagreement("probe", 0, None, False, "", ""))
    assert not Comparison("other").quirks and not Comparison("other").disagreements


def test_all_disagreements_are_counted_and_the_examples_kept() -> None:
    comparison = Comparison("info tlb")
    one, other = (Disagreement("info tlb", at, None, False, "a", "b") for at in (0x1000, 0x2000))
    comparison.disagree(7, [one])
    comparison.disagree(2, [other])
    assert comparison.disagreed == 9
    assert comparison.disagreements == [one, other]
    assert not comparison.compared, "who asks counts the questions"

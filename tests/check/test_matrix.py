"""What of declared cases is planned, and what came of them, whatever the cases are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pytest

from harness.check import matrix
from harness.check.compare import EXAMPLES
from harness.check.matrix import Plain, Plan, Report, Work, one_ahead, selected
from harness.check.product import Axis, Product, Rule, Value
from harness.machine.errors import Misuse

ODD = Rule("an odd sum", lambda of: (of["a"] + of["b"]) % 2 == 1)
ZERO = Rule("a is 0", lambda of: of["a"] + 0 * of["b"] == 0)


@dataclass(frozen=True)
class State:
    """A control state of one switch."""

    wp: int

    def values(self) -> Mapping[str, Value]:
        return {"wp": self.wp}


class Family(Plain):
    """Cases of two axes of 3 and 4 values, under two control states."""

    def __init__(self, name: str, *rules: Rule, lacking: int | None = None) -> None:
        axes = Axis("a", (0, 1, 2)), Axis("b", (0, 1, 2, 3), "#x")
        self.product, self.controls = Product(axes, rules), (State(0), State(1))
        self.name, self.lacking = name, lacking

    @property
    def fixed(self) -> Mapping[str, Value]:
        return {"family": self.name}

    def lacks(self, control: State) -> str | None:
        return "no such switch" if control.wp == self.lacking else None


def plan() -> Plan[Any]:
    return Plan("tcg", (), Counter({"mode 5": 0}), Counter({"nobody": 0, "asked": 2}), arch="riscv")


def chosen(
    *families: Family, where: str | None = None, batch: int = 100
) -> tuple[list[tuple[str, int, list[int]]], Plan[Any]]:
    found = selected(plan(), families, where, "a=1", batch)
    work = [(part.family.name, part.control.wp, part.numbers.tolist()) for part in found.work]
    return work, found


def test_without_a_condition_all_cases_are_planned_under_every_state() -> None:
    work, found = chosen(Family("one"), Family("two"))
    assert work == [(name, wp, list(range(12))) for name in ("one", "two") for wp in (0, 1)]
    assert (found.engine, found.arch, len(found)) == ("tcg", "riscv", 48)
    assert dict(found.skipped) == {"mode 5": 0} and dict(found.left_out) == {"asked": 2}


def test_what_a_rule_leaves_out_is_counted_by_the_first_that_does() -> None:
    work, found = chosen(Family("one", ODD, ZERO))
    # a=1 with b=1 and 3, a=2 with b=0 and 2; a is 0 in two of those that are left.
    assert work == [("one", wp, [5, 7, 8, 10]) for wp in (0, 1)]
    assert dict(found.left_out) == {"asked": 2, "an odd sum": 12, "a is 0": 4}


@pytest.mark.parametrize(
    ("where", "work"),
    [
        ("a=1 and b=2", [("one", wp, [6]) for wp in (0, 1)]),
        ("wp=1 and a=2", [("one", 1, [8, 9, 10, 11])]),
        ("family=one and b=3", [("one", wp, [3, 7, 11]) for wp in (0, 1)]),
    ],
)
def test_a_condition_chooses_by_axes_states_and_what_all_have_in_common(
    where: str, work: list[Any]
) -> None:
    assert chosen(Family("one"), where=where)[0] == work


def test_what_the_processor_lacks_is_counted_and_not_planned() -> None:
    work, found = chosen(Family("one", ODD, lacking=0), where="a=1")
    assert work == [("one", 1, [5, 7])]
    assert dict(found.skipped) == {"mode 5": 0, "no such switch": 4}
    assert dict(found.left_out) == {"asked": 2, "an odd sum": 2}


@pytest.mark.parametrize(
    ("batch", "parts"), [(12, [12]), (11, [6, 6]), (6, [6, 6]), (5, [4, 4, 4]), (1, [1] * 12)]
)
def test_a_batch_has_at_most_so_many_cases(batch: int, parts: list[int]) -> None:
    work, found = chosen(Family("one"), where="wp=0", batch=batch)
    assert [len(numbers) for _, _, numbers in work] == parts
    assert [one for _, _, numbers in work for one in numbers] == list(range(12))
    assert [len(part) for part in found.work] == parts


def test_what_selects_nothing_is_refused_with_the_reasons() -> None:
    with pytest.raises(Misuse) as refused:
        chosen(Family("one", ODD), where="a=0 and b=1")
    said = "no case satisfies 'a=0 and b=1' here: mode 5; asked; an odd sum"
    assert str(refused.value) == said
    with pytest.raises(Misuse) as refused:
        empty: Plan[Any] = Plan("tcg", (), Counter(), Counter())
        selected(empty, [Family("one")], "a=0 and a=1", "a=1", 9)
    assert str(refused.value) == "no case satisfies 'a=0 and a=1'"
    with pytest.raises(Misuse, match="'a=' is not a condition"):
        chosen(Family("one"), where="a=")
    with pytest.raises(Misuse, match="there is no axis 'wq'"):
        chosen(Family("one"), where="wq=1")


def test_the_axes_of_a_family_are_those_of_its_product_its_states_and_what_is_fixed() -> None:
    family = Family("one")
    assert sorted(family.axes) == ["a", "b", "family", "wp"] and len(family.axes) == 4
    assert {name: set(values) for name, values in family.axes.items()} == {
        "a": {0, 1, 2},
        "b": {0, 1, 2, 3},
        "family": {"one"},
        "wp": {0, 1},
    }
    grid = family.grid(State(1))
    assert sorted(grid) == ["a", "b", "family", "wp"] and len(grid) == 4
    assert [np.broadcast_to(grid[name], (3, 4))[2, 3].item() for name in ("a", "b", "wp")] == [
        2,
        3,
        1,
    ]
    assert grid["family"] == "one"


def test_a_case_is_told_value_by_value() -> None:
    assert Family("one").case(State(1), 7) == "family=one wp=1 a=1 b=0x3"


class Reason(Enum):
    ABSENT = "absent"


def report(number: int, **given: Any) -> Report:
    made = Report(failures=[f"{number}.{n}" for n in range(number)], **given)  # type: ignore[misc]
    made.comparison.compared, made.comparison.disagreed = 10 * number, number
    made.comparison.quirks.update({"quirk": number})
    made.comparison.news.update({"news": 2 * number})
    made.masked.update({"masked": number})
    made.by_rule.update({("4", None): number, ("4", Reason.ABSENT): 1})
    made.departed.update({("4", Reason.ABSENT): number})
    made.disagreed.update({("4", None): number})
    return made


def test_a_report_takes_in_those_of_other_cases() -> None:
    whole = Report()
    for number, given in (
        (3, {}),
        (1, {"qemu": "7.2", "executor": "tcg", "not_run_on": ("a",)}),
        (4, {}),
    ):
        whole.add(report(number, **given))
    assert (whole.qemu, whole.executor, whole.not_run_on) == ("7.2", "tcg", ("a",))
    comparison = whole.comparison
    assert (comparison.compared, comparison.disagreed) == (80, 8)
    assert (comparison.quirks, comparison.news) == ({"quirk": 8}, {"news": 16})
    failures: list[Any] = ["3.0", "3.1", "3.2", "1.0", "4.0"]
    assert whole.failures == failures and len(failures) == EXAMPLES
    assert whole.masked == {"masked": 8}
    assert whole.by_rule == {("4", None): 8, ("4", Reason.ABSENT): 3}
    assert whole.departed == {("4", Reason.ABSENT): 8}
    assert whole.disagreed == {("4", None): 8}
    whole.add(report(0, qemu="8.2", executor="bochs", not_run_on=("b",)))
    assert (whole.qemu, whole.executor, whole.not_run_on) == ("8.2", "bochs", ("b",))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_batch_is_finished_once_the_next_is_started(count: int) -> None:
    done = list[str]()

    def start(number: int) -> Callable[[], Report]:
        done.append(f"start {number}")

        def finish() -> Report:
            done.append(f"finish {number}")
            return Report(qemu=str(number))

        return finish

    reports = [one.qemu for one in one_ahead(start(number) for number in range(count))]
    assert reports == [str(number) for number in range(count)]
    expected = [f"start {number}" for number in range(min(count, 1))]
    for number in range(1, count):
        expected += [f"start {number}", f"finish {number - 1}"]
    assert done == expected + [f"finish {count - 1}"] * (count > 0)


def test_an_architecture_without_a_matrix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(matrix.with_matrix()) == {"x86", "riscv", "arm64", "s390", "power"}
    for arch in matrix.with_matrix():
        assert matrix.matrix_of(arch).USUAL_MODE in matrix.matrix_of(arch).MODES
        assert issubclass(matrix.reasons_of(arch), Enum)
    monkeypatch.setattr(matrix, "has", lambda *_: False)
    assert matrix.with_matrix() == ()
    with pytest.raises(Misuse, match="riscv has no matrix: `pagetable validate --arch riscv` asks"):
        matrix.matrix_of("riscv")


def test_work_is_as_long_as_it_has_cases() -> None:
    work = Work(Family("one"), State(0), np.arange(5))
    assert len(work) == 5
    assert len(Plan("tcg", (work, work), Counter(), Counter())) == 10

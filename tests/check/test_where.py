import numpy as np
import pytest

from harness.check.where import DEEPEST, LONGEST, SHOWN, AxesOf, read

# Six cases by hand.
VALUES = {
    "level": np.array([0, 1, 2, 3, 3, 3]),
    "access": np.array(["read", "fetch", "read", "fetch", "write", "fetch"]),
    "address": np.array([0, 1, 2, 3, 4, (1 << 64) - 1], np.uint64),
    "W": np.array([False, True, True, False, False, True]),
    "never": np.zeros(6, np.bool_),
}
AXES = {
    **AxesOf({name: values.tolist()} for name, values in VALUES.items()),
    "key": frozenset({0, 1}),
}


def test_parts_beside_each_other_do_not_nest() -> None:
    """More of them than may nest."""
    for part in "(level=3)", "not level=0":
        assert read(" and ".join([part] * (DEEPEST + 1)), AXES).holds(VALUES).any()
    with pytest.raises(ValueError, match=f"nests deeper than {DEEPEST}"):
        read("(" * (DEEPEST + 1) + "W" + ")" * (DEEPEST + 1), AXES)
    assert read("(" * DEEPEST + "W" + ")" * DEEPEST, AXES).holds(VALUES).any()


@pytest.mark.parametrize(("count", "end"), [(SHOWN, f", {SHOWN - 1}"), (SHOWN + 1, r", \.\.\.")])
def test_as_many_values_are_shown_as_a_sentence_can_hold(count: int, end: str) -> None:
    axes = {"level": frozenset(range(count))}
    with pytest.raises(ValueError, match=f"level is never 'x', but 0, 1, 2.*{end};"):
        read("level=x", axes)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("level=3", [3, 4, 5]),
        ("level != 3", [0, 1, 2]),
        ("level<2", [0, 1]),
        ("level <= 2", [0, 1, 2]),
        ("level>2", [3, 4, 5]),
        ("level>=2", [2, 3, 4, 5]),
        ("access=fetch", [1, 3, 5]),
        ("level=3 and access=fetch", [3, 5]),
        ("level=0 or access=fetch and level=1", [0, 1]),
        ("(level=0 or access=fetch) and level=1", [1]),
        ("not access=fetch", [0, 2, 4]),
        ("not level=3 and access=fetch", [1]),
        ("not (level=3 and access=fetch)", [0, 1, 2, 4]),
        ("level in (0, 2)", [0, 2]),
        ("access in (write)", [4]),
        ("address=0xffffffffffffffff", [5]),
        ("address=0b11", [3]),
        ("level<0", []),
        ("W", [1, 2, 5]),
        ("W and level=3", [5]),
        ("not W", [0, 3, 4]),
        ("level=3 and not W or (never)", [3, 4]),
        ("never", []),
        ("W=0", [0, 3, 4]),
    ],
)
def test_a_condition_holds_of_the_cases_it_says(text: str, chosen: list[int]) -> None:
    holds = np.broadcast_to(read(text, AXES).holds(VALUES), 6)
    assert np.flatnonzero(holds).tolist() == chosen


@pytest.mark.parametrize("text", ["key=0", "key!=0", "key in (0, 1)", "key<1"])
def test_a_comparison_is_false_of_cases_without_the_axis(text: str) -> None:
    assert not read(text, AXES).holds(VALUES)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'the end' stands where the name of an axis should"),
        ("level", "'the end' after 'level' compares nothing"),
        ("level=", "'the end' stands where a value should"),
        ("level=3 and", "'the end' stands where the name of an axis should"),
        ("level=3 level=2", "'level' is one too many"),
        ("(level=3", r"'the end' stands where '\)' should"),
        ("level in 3", r"'3' stands where '\(' should"),
        ("level in ()", r"'\)' stands where a value should"),
        ("and level=3", "'and' stands where the name of an axis should"),
        ("level=and", "'and' stands where a value should"),
        ("level==3", "'=' stands where a value should"),
        ("level=3;", "';' is one too many"),
        ("depth=3", "there is no axis 'depth', but level, access and 4 more"),
        ("lvel=3", "there is no axis 'lvel', did you mean level?"),
        ("level=9", "level is never '9', but 0, 1, 2, 3"),
        ("access=jump", "access is never 'jump', but fetch, read, write"),
        ("level=fetch", "level is never 'fetch'"),
        ("access<3", "access has no order"),
        ("level<much", "'much' is no number"),
    ],
)
def test_what_is_no_condition_is_refused_in_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read(text, AXES)


def test_a_condition_is_shown_whole_as_long_as_a_sentence_can_hold_it() -> None:
    for length, more in (LONGEST, ""), (LONGEST + 1, "..."):
        text = "no".ljust(length)
        with pytest.raises(ValueError) as refused:
            read(text, AXES)
        assert str(refused.value).startswith(f"{text[:LONGEST] + more!r} is not a condition: ")


@pytest.mark.parametrize(
    "deep",
    [
        "(" * 100_000 + "W" + ")" * 100_000,
        "(" * 100_000,
        "not " * 100_000 + "W",
        "not (" * 60 + "W" + ")" * 60,
    ],
    ids=["parentheses", "unclosed", "not", "both"],
)
def test_a_condition_that_nests_too_deep_is_a_short_sentence(deep: str) -> None:
    with pytest.raises(ValueError, match="is not a condition: it nests deeper than 50") as refused:
        read(deep, AXES)
    assert len(str(refused.value)) < 400


def test_one_that_is_long_but_flat_is_read() -> None:
    text = " or ".join(["level=1 and W"] * 5000)
    holds = np.broadcast_to(read(text, AXES).holds(VALUES), 6)
    assert np.flatnonzero(holds).tolist() == [1]
    text = "not (" * 25 + "W" + ")" * 25
    assert np.flatnonzero(read(text, AXES).holds(VALUES)).tolist() == [0, 3, 4]


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "level=" + "9" * 100_000, "level " + "!" * 100_000]
)
def test_what_is_wrong_in_a_long_word_is_a_short_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is not a condition") as refused:
        read(text, AXES)
    assert len(str(refused.value)) < 600


def test_axes_that_may_be_meant_are_the_usual_ones_or_else_the_first() -> None:
    usual = {name: frozenset({0}) for name in ("zone", "mode", "kind")}
    with pytest.raises(ValueError, match="there is no axis 'qqqqq', but mode, kind and 1 more"):
        read("qqqqq=1", usual)
    others = {f"axis{number:02}": frozenset({0}) for number in range(12)}
    with pytest.raises(ValueError, match=r"but axis00, axis01, .*, axis09 and 2 more"):
        read("qqqqq=1", others)

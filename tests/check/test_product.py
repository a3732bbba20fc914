from itertools import product

import numpy as np
import pytest

from harness.check.product import Axis, Product, Rule, evenly

AXES = (Axis("level", (0, 3)), Axis("access", ("read", "write", "fetch")), Axis("at", (16,), "#x"))


def test_the_numbers_of_a_product_are_its_combinations_the_last_axis_fastest() -> None:
    places = Product(AXES).places(np.arange(6))
    combinations = list(zip(*(places[axis.name].tolist() for axis in AXES), strict=True))
    assert combinations == list(product((0, 1), (0, 1, 2), (0,)))


def test_a_rule_leaves_out_its_cases_and_no_other() -> None:
    rule = Rule("", lambda values: (values["level"] == 3) & (values["access"] == "fetch"))
    legal = Product(AXES, (rule,)).legal()
    assert legal.shape == (2, 3, 1)
    assert np.flatnonzero(~legal).tolist() == [5]


def test_a_case_prints_its_values_as_its_axes_do() -> None:
    assert Product(AXES).case(4) == "level=3 access=write at=0x10"
    assert Product(AXES).case(0) == "level=0 access=read at=0x10"
    assert Product(AXES).case(5) == "level=3 access=fetch at=0x10"


@pytest.mark.parametrize("number", [-1, 6])
def test_a_number_beyond_the_product_is_no_case(number: int) -> None:
    with pytest.raises(ValueError, match=f"no case {number} among 6"):
        Product(AXES).case(number)


def test_addresses_keep_all_their_bits() -> None:
    axis = Axis("address", (0, (1 << 64) - 1))
    assert axis.array.tolist() == [0, (1 << 64) - 1]


def test_values_may_be_negative() -> None:
    assert Axis("step", (-1, 0, 1)).array.tolist() == [-1, 0, 1]
    assert Axis("step", (0,)).array.dtype == np.uint64


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
def test_some_of_many_are_spread_from_the_first_to_the_last(n: int) -> None:
    for count in (0, 1, 2, 3, 6, 7, 8, 200):
        found = evenly(n, count).tolist()
        assert len(found) == len(set(found)) == min(n, count)
        assert found == sorted(found)
        if count >= 2 and n:
            assert (found[0], found[-1]) == (0, n - 1)
            gaps = np.diff(found)
            assert not len(gaps) or gaps.max() - gaps.min() <= 1

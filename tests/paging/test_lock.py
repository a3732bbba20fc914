"""Locks of several tables are taken in one order, so that nobody waits for somebody who waits."""

import pytest

from harness.paging.address import Physical
from harness.paging.lock import TableLock, held
from harness.paging.table import Table
from tests.paging.spaces import FORMATS

X86 = FORMATS["x86-4"]


def lock(level: int, address: int) -> TableLock:
    return TableLock(Table(X86, Physical(address), level))


class Traced(TableLock):
    """A lock that writes down what is done with it."""

    def __init__(self, level: int, address: int, trace: list[str]) -> None:
        super().__init__(Table(X86, Physical(address), level))
        self.name, self.trace = f"{level}:{address:#x}", trace

    def __enter__(self) -> None:
        super().__enter__()
        self.trace.append(f"+{self.name}")

    def __exit__(self, *error: object) -> None:
        self.trace.append(f"-{self.name}")
        super().__exit__(None, None, None)


def test_upper_tables_come_first_and_those_of_a_level_by_their_addresses() -> None:
    in_order = [lock(3, 0x9000), lock(1, 0x2000), lock(1, 0x3000), lock(0, 0x1000)]
    mixed = [in_order[place] for place in (2, 0, 3, 1)]
    assert sorted(mixed, key=lambda one: one.rank) == in_order


def test_all_locks_are_taken_once_in_order_and_given_back_the_other_way_round() -> None:
    trace: list[str] = []
    upper, lower = Traced(1, 0x5000, trace), Traced(0, 0x1000, trace)
    with held([lower, upper, lower]):
        assert trace == ["+1:0x5000", "+0:0x1000"]
    assert trace[2:] == ["-0:0x1000", "-1:0x5000"]


def test_an_error_gives_back_what_was_taken() -> None:
    trace: list[str] = []

    class Broken(Traced):
        def __enter__(self) -> None:
            raise KeyboardInterrupt

    upper, lower = Traced(1, 0x5000, trace), Broken(0, 0x1000, trace)
    with pytest.raises(KeyboardInterrupt), held([lower, upper]):
        raise AssertionError("not all locks were taken")
    assert trace == ["+1:0x5000", "-1:0x5000"]
    with pytest.raises(KeyError), held([upper]):
        raise KeyError
    with held([upper]):
        pass

"""The last data storage interrupt, by DSISR and DAR."""

from __future__ import annotations

import pytest

from harness.inspect.last import raised
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.power.access import Kind
from harness.paging.power.cpu import Cpu
from tests.inspect.power.handmade import ROOT, TREE, Built


def snapshot(**registers: int) -> Snapshot:
    return Snapshot("a guest", Cpu(TREE | ROOT), Built().memory, None, registers=registers)


def test_dsisr_and_dar_tell_it() -> None:
    found = raised(snapshot(dsisr=0x4200_0000, dar=0xC000_1234), 1)
    assert (found.address, found.code) == (0xC000_1234, 0x4200_0000)
    assert {one.kind for one in found.accesses} == {Kind.WRITE}
    assert found.said.startswith("From processor 1: DSISR 0x42000000 and DAR 0xc0001234")


def test_without_them_or_without_a_cause_the_address_is_to_be_named() -> None:
    with pytest.raises(QuestionError, match="a guest does not record DSISR and DAR"):
        raised(snapshot(dsisr=0x4200_0000), 0)
    with pytest.raises(QuestionError, match="processor 0 shows no data storage interrupt"):
        raised(snapshot(dsisr=0, dar=0), 0)

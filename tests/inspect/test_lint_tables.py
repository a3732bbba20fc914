"""A page that holds a table in use is found on every architecture, by who may write to it."""

from __future__ import annotations

import pytest

from harness.inspect import architecture
from harness.inspect.lint import lint
from harness.inspect.sources import layout
from harness.paging.address import Virtual
from harness.paging.format import Format
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.walk import walk

PAGE = 0x40_0000
USER = {
    ("user", "write"): ("error", "table-user-writable", ""),
    ("user", "read"): ("warning", "table-user-readable", ""),
    ("supervisor", "write"): ("note", "table-mapped", "can be written"),
    ("supervisor", "read"): ("note", "table-mapped", "read-only"),
}
KEYED = {
    **dict.fromkeys(
        [("user", "write"), ("supervisor", "write")], ("note", "table-mapped", "can be written")
    ),
    **dict.fromkeys(
        [("user", "read"), ("supervisor", "read")], ("note", "table-mapped", "read-only")
    ),
}
"""On s390 nothing in entries is about problem state."""


def with_right(format: Format, raw: int, right: str, given: bool) -> int:
    bit = format.rights.get(right, 0)
    return raw | bit if bool(bit & format.denied) ^ given else raw & ~bit


@pytest.mark.parametrize(("who", "what"), USER)
@pytest.mark.parametrize("arch", ["x86", "riscv", "arm64", "power", "s390"])
def test_a_page_that_holds_a_table_is_found(arch: str, who: str, what: str) -> None:
    name = "smallest" if arch == "x86" else f"{arch}/smallest"
    made = layout.snapshot(name, 4 if arch == "x86" else None, {})
    asked, memory = architecture.of(made.cpu), made.memory
    cpu = asked.part(made.cpu, PAGE)
    assert isinstance(memory, BufferMemory)
    root = root_for(cpu, Virtual(PAGE))
    assert root is not None
    slot, raw, _ = walk(memory, root, Virtual(PAGE)).steps[-1]
    format, table = slot.table.format, slot.table
    shape = format.levels[0].shape(raw)
    raw &= ~(shape.address_mask | shape.bits.get("DBM", 0))
    raw |= sum(table.address >> part.shift & part.mask for part in shape.address)
    raw = with_right(format, raw, "user", who == "user")
    raw = with_right(format, raw, "write", what == "write")
    for right in format.rights:
        if right.endswith("execute"):
            raw = with_right(format, raw, right, given=False)
    memory.store(table.slot(2).address, format.entry_bytes, raw)
    broken, _ = lint(made, asked.memory_types.types(None, cpu))
    (one,) = (one for one in broken if one.rule.name.startswith("table-"))
    (found,) = one.findings
    expected = (KEYED if arch == "s390" else USER)[who, what]
    assert (one.rule.severity.value, one.rule.name, found.detail) == expected
    assert found.where is not None and found.where.first == PAGE + 2 * slot.size
    if arch == "s390":
        assert "problem state reaches them too, unless storage keys" in one.rule.sentence
        assert "supervisor" not in one.rule.sentence

"""The table of changes and their flushes, executed at every level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.check import changes
from harness.check.changes import NOTHING, RAM_BYTES, Change
from harness.check.x86.changes import CHANGES, execute, keyed
from harness.check.x86.space import GuestSpace
from harness.machine.x86.guest import Guest
from harness.machine.x86.registry import ENGINES
from harness.paging.x86.formats import long_mode
from harness.pytest_plugin import SKIPPED

FOLLOWED = ("a page unmapped", "a table given to users", "another key for a page")
"""Rows for a machine that follows every store."""

NAMED = pytest.mark.parametrize("change", CHANGES, ids=[one.name for one in CHANGES])


@pytest.fixture(scope="module")
def roomy(paging_engine: str) -> Iterator[Guest]:
    """A guest with RAM for two pages of 1 GiB."""
    if (most := ENGINES[paging_engine].largest_ram) < RAM_BYTES:
        pytest.skip(f"{SKIPPED}{paging_engine} has at most {most} bytes of RAM, not {RAM_BYTES}")
    with Guest(paging_engine, ram_bytes=RAM_BYTES) as guest:
        yield guest


@pytest.mark.hw
@NAMED
def test_the_machine_needs_the_flush_of_a_change(
    roomy: Guest, paging_levels: int, change: Change
) -> None:
    format = GuestSpace(roomy, paging_levels).format
    if keyed(change) and not roomy.info.has("pku"):
        pytest.skip(f"{SKIPPED}{roomy.engine.name} has a processor without protection keys")
    levels = list(change.levels(format))
    if not roomy.engine.keeps_stale:  # it is a hundred times slower, and shows none of it
        if change.name not in FOLLOWED:
            pytest.skip(f"{SKIPPED}{roomy.engine.name} follows every store: three rows show that")
        levels = levels[:1]
    wrong = {level: execute(roomy, paging_levels, change, level) for level in levels}
    assert wrong == {level: [] for level in levels}


@pytest.mark.hw
@pytest.mark.parametrize(
    ("name", "flush", "sentence"),
    [
        ("a page moved to another frame", NOTHING, "stale though nothing had to be"),
        ("write given to a page", changes.PAGE, "nothing stale was seen while"),
        ("a page unmapped", changes.ALL, "the library asks to flush the page, not ever"),
    ],
)
def test_a_row_that_is_wrong_is_contradicted(
    roomy: Guest, paging_levels: int, name: str, flush: str, sentence: str
) -> None:
    if not roomy.engine.keeps_stale:
        pytest.skip(f"{SKIPPED}{roomy.engine.name} follows every store to a table, flushed or not")
    [row] = [one for one in CHANGES if one.name == name]
    found = execute(roomy, paging_levels, replace(row, flush=flush), 0)
    assert any(one.startswith(sentence) for one in found), found


def test_every_level_has_its_rows() -> None:
    format = long_mode(5, 40, True, True)
    for level, here in enumerate(format.levels):
        rows = [one for one in CHANGES if level in one.levels(format)]
        found = {row.before.kind for row in rows} - {"absent"}
        shapes = {"page": here.leaf, "table": here.pointer}
        assert found == {kind for kind, shape in shapes.items() if shape}

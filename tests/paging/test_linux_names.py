"""The table that leads from the names of the patch to ours."""

import re
from importlib import import_module

import pytest

from harness.paging import linux

# What the patch defines, and the functions that it converts.
PATCH = re.findall(
    r"\w+",
    """
    BITS_PER_PT PTRS_PER_PT PT_TOP_LEVEL PT_SPLIT_LOCK_LVLS PT_ACCOUNT_LVLS __pt_shift __pt_index
    pt_ptr pt_val PTP_INIT ptp_t ptv_t get_ptv __ptv_flags
    ptv_bottom ptv_size ptv_mask ptv_addr_end ptv_none ptv_present ptv_bad ptv_huge ptv_devmap
    ptv_swap ptv_leaf ptv_pfn ptp_init ptp_convert ptp_next ptp_prev ptp_clear ptp_error
    ptp_clear_bad ptp_none_or_clear_bad ptp_page_vaddr ptp_walk ptp_lock_ptr ptp_lock ptp_unmap
    ptp_unlock_unmap ptp_alloc_one ptp_free mm_accout_pt ptp_set ptp_populate ptp_alloc
    ptp_walk_alloc sync_global_pgds copy_pt_leaf copy_pt_range copy_page_range
    """,
)

HOME = {
    "Value": "value",
    "Level": "format",
    "Root": "table",
    "Tree": "tree",
    "TableAllocator": "allocator",
    "Linux": "linux.entries",
    "entries": "linux",
    "folded": "linux",
}
"""Where a name of the table is found that begins with no module of the library."""


def rows() -> list[tuple[str, str]]:
    """The first two columns, line by line."""
    assert linux.__doc__ is not None
    table = linux.__doc__.partition("-----\n")[2]
    return [(line[:25], line[25:51]) for line in table.splitlines()]


def ours() -> set[str]:
    return {name for _, here in rows() for name in re.findall(r"[A-Z]?\w+\.\w+", here)}


def test_the_table_has_every_name_of_the_patch() -> None:
    named = [name for theirs, _ in rows() for name in re.findall(r"\w+", theirs)]
    assert sorted(named) == sorted(PATCH)


@pytest.mark.parametrize("name", sorted(ours()))
def test_every_name_that_the_table_leads_to_exists(name: str) -> None:
    first, *rest = name.split(".")
    if first in HOME:
        rest, first = [first, *rest], HOME[first]
    if rest[0] in ("entries", "folded"):
        first, rest = f"{first}.{rest[0]}", rest[1:]
    found: object = import_module(f"harness.paging.{first}")
    for part in rest:
        found = getattr(found, part, None) or getattr(found, "__annotations__", {})[part]

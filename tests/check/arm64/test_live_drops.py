"""What each TLBI drops ("TLB maintenance instructions"): it decides what may still be kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.arm64.live import Live
from harness.check.live import Flushed
from tests.check import drops
from tests.check.drops import FLUSHED, columns

PAGES = {
    **drops.PAGES,
    "the 64K page": (0x4020_F000, 16, True),
    "the 64K page behind": (0x4021_0000, 16, False),
}
"""Translations, and whether TLBI of `FLUSHED` drops them."""


def dropped(flush: Flushed, is_global: bool) -> dict[str, bool]:
    lanes = np.arange(len(PAGES))
    addresses, shifts = columns(PAGES)
    source: Any = SimpleNamespace(
        address=addresses, shift=shifts, lasting=np.full(len(PAGES), is_global)
    )
    live: Any = None
    found = Live._drops(live, flush, source, lanes[::-1], source, lanes)[::-1]
    return dict(zip(PAGES, found.tolist(), strict=True))


@pytest.mark.parametrize("is_global", [False, True])
@pytest.mark.parametrize("global_pages", [False, True])
def test_that_of_an_address_drops_its_page_whosever_it_is(
    global_pages: bool, is_global: bool
) -> None:
    """TLBI VAE1 drops what is global as VAAE1 does."""
    flush = Flushed(np.array([FLUSHED], np.uint64), global_pages)
    assert dropped(flush, is_global) == {name: named for name, (_, _, named) in PAGES.items()}


@pytest.mark.parametrize(
    ("global_pages", "is_global", "dropping"),
    [(False, False, True), (False, True, False), (True, False, True), (True, True, True)],
)
def test_that_of_an_address_space_leaves_what_is_global(
    global_pages: bool, is_global: bool, dropping: bool
) -> None:
    assert set(dropped(Flushed(None, global_pages), is_global).values()) == {dropping}

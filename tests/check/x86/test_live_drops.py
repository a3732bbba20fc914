"""What each flush drops, by SDM volume 3A, 4.10.4.1: it decides what may still be kept."""

import numpy as np
import pytest

from harness.check.live import Flushed
from harness.check.x86.live import drops
from tests.check import drops as about
from tests.check.drops import FLUSHED, columns

PAGES = {
    **about.PAGES,
    "another part of the 1G page": (0x7FFF_F000, 30, True),
    "the 1G page before": (0x3FFF_F000, 30, False),
}
"""Translations, and whether INVLPG of `FLUSHED` drops them."""


def dropped(flush: Flushed, is_global: bool) -> dict[str, bool]:
    found = drops(flush, *columns(PAGES), np.full(len(PAGES), is_global))
    return dict(zip(PAGES, found.tolist(), strict=True))


@pytest.mark.parametrize("is_global", [False, True])
def test_invlpg_drops_the_page_of_its_address_global_or_not(is_global: bool) -> None:
    flush = Flushed(np.array([FLUSHED], np.uint64), global_pages=True)
    assert dropped(flush, is_global) == {name: drops for name, (_, _, drops) in PAGES.items()}


def test_each_of_several_invlpgs_drops_its_page() -> None:
    flush = Flushed(np.array([0x4020_0000, 0x4040_0000], np.uint64), global_pages=True)
    wanted = {"the page before", "another part of the 2M page", "the 2M page behind"}
    wanted |= {"another part of the 1G page"}
    assert {name for name, drops in dropped(flush, False).items() if drops} == wanted


@pytest.mark.parametrize(("global_pages", "is_global", "drops"), [
    (False, False, True), (False, True, False), (True, False, True), (True, True, True),
])  # fmt: skip
def test_a_load_of_cr3_keeps_what_is_global_and_a_change_of_pge_nothing(
    global_pages: bool, is_global: bool, drops: bool
) -> None:
    flush = Flushed(None, global_pages)
    assert set(dropped(flush, is_global).values()) == {drops}

"""Where a space is tried: at the edges of all that it holds, and just beyond them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from harness.check.marks import WORD
from harness.paging.bulk import End, Leaves
from harness.paging.memory import Mask, Words, distinct, within
from harness.paging.table import Root

STRAYS: Final = 64
"""Addresses tried that nothing in a space suggests."""


def strays(source: np.random.Generator) -> Words:
    """Such addresses, of 64 bits."""
    return source.integers(0, 1 << 64, STRAYS, dtype=np.uint64)


def tried(
    roots: Sequence[Root],
    leaves: Leaves,
    left_out: Callable[[Words], Mask],
    *,
    code: int,
    strays: Words,
    edges: Iterable[int] = (),
    width: int = WORD,
    bits: int = 64,
) -> tuple[Words, Words]:
    """The addresses of words and those of code that are tried, in order, each once.

    Of each row of `leaves` that has memory these are the first and the last word, and the code of
    the first and of the last page; and of both the words before and after each row, those on either
    side of each end of what the roots serve, the `strays` and the `edges`, without what is left
    out.

    left_out  which of these are not tried: those that lead to a page, among others
    code      where in a page code is, in bytes
    edges     addresses besides, any numbers
    width     the bytes of a word
    bits      how wide addresses are
    """
    sizes, pages = np.zeros((2, len(leaves.virtual)), np.uint64)
    for root in roots:
        here, levels = within(leaves.virtual, root.span), root.table.format.levels
        spanned = np.array([level.size for level in levels], np.uint64)
        sizes[here], pages[here] = spanned[leaves.level[here]], spanned[0]
    first, past, held = leaves.virtual, leaves.virtual + sizes, leaves.end != End.UNBACKED
    data = np.concatenate([first[held], past[held] - np.uint64(width)])
    codes = np.concatenate([first[held], (past - pages)[held]]) + np.uint64(code)
    ends = [edge for root in roots for edge in (root.span.first, root.span.last + 1)]
    both = [*edges, *ends, *(end - width for end in ends)]
    beyond = np.array([edge % (1 << 64) for edge in both], np.uint64)
    elsewhere = np.concatenate([first - np.uint64(width), past, strays, beyond])
    elsewhere &= np.uint64((1 << bits) - WORD)
    elsewhere = elsewhere[~left_out(elsewhere)]
    return distinct(np.concatenate([data, elsewhere])), distinct(np.concatenate([codes, elsewhere]))

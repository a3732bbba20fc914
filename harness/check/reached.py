"""What accesses reach: the words and the code that they find, and the entries of their paths, all
put there before and looked at after.

What accesses are, and which are allowed, is the architecture's: its module `probes` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.check.compare import Comparison
from harness.check.marks import WORD, put_marks
from harness.check.tables import TableImage
from harness.paging.address import Span
from harness.paging.bulk import Counts, Paths
from harness.paging.memory import BufferMemory, Mask, Words, within

_ALL = np.uint64((1 << 64) - 1)


class Code(NamedTuple):
    """The code of an architecture that names its frame: what puts it at physical addresses, and
    what it leaves in a register."""

    put: Callable[[BufferMemory, Words], None]
    mark: Callable[[Words], Words]


@dataclass(frozen=True)
class Reached:
    """Where accesses lead, one a lane.

    allowed  whether the access is made
    fetch    whether it is a fetch
    paths    the entries on the way, as they are before
    data     the physical address of the word, or of the code, that an allowed access reaches
    astray   where it is none of a frame, or not where the raw entries lead: never right
    content  what lies there before; of code the mark
    """

    allowed: Mask
    fetch: Mask
    paths: Paths
    data: Words
    astray: Mask
    content: Words

    @property
    def word(self) -> Mask:
        """Which reach a word of a frame, that is put there and looked at."""
        words: Mask = self.allowed & ~self.fetch & ~self.astray
        return words

    @property
    def stored(self) -> Words:
        """What accesses that write store."""
        return ~self.content


def asked_of(
    comparison: Comparison,
    made: Mask,
    by_entries: Words,
    frames: Sequence[Span],
    tables: Sequence[TableImage],
) -> Mask:
    """Which accesses are made of the guest, those that are denied among them; the others are
    counted as not comparable.

    made        which reach a page
    by_entries  where the raw entries take the addresses
    frames      where the pages are that may be reached
    tables      those of the space: no access overwrites them
    """
    nowhere, in_table = made & ~within(by_entries, *frames), np.zeros(len(made), np.bool_)
    for image in tables:
        in_table |= made & ~nowhere & image.holds(by_entries)
    for reason, lanes in (
        ("the page has no memory behind it", nowhere),
        ("the page holds a table", in_table),
    ):
        if left_out := int(lanes.sum()):
            comparison.not_comparable[reason] += left_out
    asked: Mask = ~nowhere & ~in_table
    return asked


def marked(
    memory: BufferMemory,
    frames: Sequence[Span],
    width: int,
    code: Code,
    *,
    allowed: Mask,
    fetch: Mask,
    paths: Paths,
    data: Words,
    by_entries: Words,
) -> Reached:
    """What accesses reach, with marks put there; fields as in `Reached`.

    frames      where the pages are that may be reached
    width       the bytes of a word
    by_entries  where the raw entries take the addresses, for those that the reference leads astray
    """
    astray = allowed & (~within(data, *frames) | (data != by_entries))
    there = np.where(astray, by_entries, data)
    put = allowed & within(there, *frames)
    word, executed = put & ~fetch, put & fetch
    put_marks(memory, there[word] & ~np.uint64(WORD - 1))
    code.put(memory, there[executed])
    content = np.zeros(len(allowed), np.uint64)
    content[word] = memory.gather(there[word], width)[0]
    content[executed] = code.mark(there[executed])
    return Reached(allowed, fetch, paths, data, astray, content)


def put_paths(jobs: npt.NDArray[np.void], expected: Reached) -> None:
    """Has jobs put the path of each access back as it was built, and look at it.

    The words of a job are the entries of the path from the root down, and after them the word that
    the access reaches.
    """
    paths, steps, word = expected.paths, expected.paths.used.sum(axis=0), expected.word
    for level, lanes, columns in _columns(paths):
        jobs["where"][lanes, columns] = paths.slot[level, lanes]
        jobs["word"][lanes, columns] = paths.raw[level, lanes]
    jobs["where"][word, steps[word]] = expected.data[word]
    jobs["word"][word, steps[word]] = expected.content[word]
    jobs["patched"] = jobs["watched"] = steps + word


def left_as(
    expected: Reached,
    results: npt.NDArray[np.void],
    changed: Callable[[int], tuple[Words, Words]],
    writes: Mask,
    width: np.uint64 = _ALL,
) -> Mask:
    """Whether the entries of the path, and the word, are afterwards what they should be.

    changed  of a level, what its entries should be, and the bits that may be either
    writes   which accesses store
    width    the bits of a word that count
    """
    paths, agree = expected.paths, np.ones(len(expected.allowed), np.bool_)
    for level, lanes, columns in _columns(paths):
        should, free = changed(level)
        differs = (results["after"][lanes, columns] ^ should[lanes]) & ~free[lanes]
        agree[lanes] &= differs == 0
    data = expected.word
    steps = paths.used.sum(axis=0)[data]
    word = np.where(writes, expected.stored, expected.content) & width
    agree[data] &= results["after"][data, steps] == word[data]
    return agree


def _columns(paths: Paths) -> Iterator[tuple[int, Counts, Counts]]:
    """Each level with the lanes whose path has an entry there, and which of the path's it is, from
    the root down: walks do not begin at one level where roots have tables of several formats."""
    levels = len(paths.used)
    top = levels - 1 - paths.used[::-1].argmax(axis=0)
    for level in range(levels):
        lanes = np.flatnonzero(paths.used[level])
        yield level, lanes, top[lanes] - level


def words_after(result: np.void, paths: Paths, lane: int) -> str:
    """The entries of a path after an access, for people."""
    steps = int(paths.used[:, lane].sum())
    return ", ".join(hex(int(word)) for word in result["after"][:steps])

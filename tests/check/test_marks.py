"""What a frame holds names the frame."""

from __future__ import annotations

import numpy as np

from harness.check import marks
from harness.paging.memory import BufferMemory

FIRST = 0x300_0000
PAGES = 64
PAGE = 4096


def memory() -> BufferMemory:
    return BufferMemory(np.zeros(PAGES * PAGE, np.uint8), FIRST)


def test_every_word_has_its_own_mark_and_the_mark_gives_the_word_away() -> None:
    words = np.arange(FIRST, FIRST + PAGES * PAGE, marks.WORD, dtype=np.uint64)
    marked = marks.mark(words)
    assert len(set(marked.tolist())) == len(words)
    assert (marked & np.uint64(7) == 7).all(), "a read that loses its lowest bits agrees"
    assert [marks.marked(int(mark)) for mark in marked[:1000]] == words[:1000].tolist()


def test_marks_are_put_where_they_belong_and_nowhere_else() -> None:
    ram = memory()
    where = np.array([FIRST, FIRST + PAGE - 8], np.uint64)
    marks.put_marks(ram, where)
    found = ram.gather(np.arange(FIRST, FIRST + 2 * PAGE, 8, dtype=np.uint64), 8)[0]
    assert np.flatnonzero(found).tolist() == [0, PAGE // 8 - 1]
    assert found[[0, PAGE // 8 - 1]].tolist() == marks.mark(where).tolist()

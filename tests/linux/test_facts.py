"""Every line of init.c is read as its head describes it."""

from __future__ import annotations

import pytest

from harness.paging.address import Span
from images.linux.facts import Process, parse

MAP = (
    "@ map space=child name=forked first=0x1000 size=0x8000 rights=r-x sharing=shared page=4K"
    " stamped=yes frames=1a2b*4,1c00,-*2,?"
)


def test_each_kind_of_line_is_read() -> None:
    facts = parse(
        "[    0.000000] a line of the kernel\r\n"
        "@ kernel release=6.1.0-1-amd64\r\n"
        "@ process space=child pid=48 cpu=1 spins=0x40115a\r\n" + MAP + "\r\n"
    )
    assert facts.release == "6.1.0-1-amd64"
    assert facts.processes == {"child": Process("child", 48, 1, 0x40115A)}
    (told,) = facts.of("child", "forked")
    assert (told.span, told.rights, told.shared) == (Span(0x1000, 0x8FFF), "r-x", True)
    assert (told.page, told.stamped) == (0x1000, True)


def test_frames_are_read_run_by_run() -> None:
    (told,) = parse(MAP).maps
    there = [0x1A2B000, 0x1A2C000, 0x1A2D000, 0x1A2E000, 0x1C00000]
    assert told.frames.tolist() == [*there, 0, 0, 0]
    assert told.present.tolist() == [True] * 5 + [False] * 3
    assert told.absent.tolist() == [False] * 5 + [True] * 2 + [False]
    assert told.addresses.tolist() == list(range(0x1000, 0x9000, 0x1000))


def test_pages_in_swap_have_an_area_and_a_place_and_no_frame() -> None:
    (told,) = parse(MAP.replace("1a2b*4,1c00,-*2,?", "1a2b*2,s45,s60*2,-*2,?")).maps
    assert told.swap == {0x3000: (5, 2), 0x4000: (0, 3), 0x5000: (1, 3)}
    assert told.present.tolist() == [True] * 2 + [False] * 6
    assert told.absent.tolist() == [False] * 2 + [True] * 5 + [False]
    assert told.frames.tolist() == [0x1A2B000, 0x1A2C000, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("*4", "*5"),
        ("frames=", "frame="),
        ("page=4K", "page=1G"),
        ("sharing=shared", "sharing=maybe"),
        ("1c00", "1x00"),
    ],
)
def test_a_line_that_reads_otherwise_is_refused(old: str, new: str) -> None:
    with pytest.raises(ValueError, match="not a line of init"):
        parse(MAP.replace(old, new))


def test_what_was_not_told_can_not_be_asked_for() -> None:
    with pytest.raises(KeyError, match="the parent told of no forked"):
        parse(MAP).of("parent", "forked")

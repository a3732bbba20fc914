"""Spans, and the arithmetic of addresses."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paging.address import Span, aligned

TOP = 0xFFFF_FFFF_FFFF_FFFF
SMALL = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ends: Span(*sorted(ends)))


def addresses(span: Span) -> set[int]:
    return {a for a in range(100) if span.first <= a <= span.last}


def test_a_span_at_the_top_of_the_address_space_does_not_wrap() -> None:
    span = Span.of(0xFFFF_FFFF_FFFF_F000, 0x1000)
    assert span.last == TOP
    assert TOP in span
    assert 0 not in span
    assert TOP + 1 not in span
    assert span.size == 0x1000


def test_pieces_end_with_the_top_of_the_address_space() -> None:
    pieces = list(Span(0xFFFF_FFFF_FFFF_DFFF, TOP).pieces(0x1000))
    assert pieces == [
        Span(0xFFFF_FFFF_FFFF_DFFF, 0xFFFF_FFFF_FFFF_DFFF),
        Span(0xFFFF_FFFF_FFFF_E000, 0xFFFF_FFFF_FFFF_EFFF),
        Span(0xFFFF_FFFF_FFFF_F000, TOP),
    ]


def test_the_whole_address_space_is_one_span() -> None:
    assert Span(0, TOP).size == 1 << 64


@given(st.integers(0, TOP), st.integers(1, 1 << 20), st.integers(16, 24))
def test_pieces_are_the_span_without_gap_or_overlap(first: int, size: int, log: int) -> None:
    span = Span(first, min(first + size, TOP))
    pieces = list(span.pieces(1 << log))
    assert pieces[0].first == span.first
    assert pieces[-1].last == span.last
    for left, right in pairwise(pieces):
        assert right.first == left.last + 1
        assert right.first % (1 << log) == 0
    for piece in pieces:
        assert piece.first // (1 << log) == piece.last // (1 << log)


@given(SMALL, SMALL)
def test_a_clip_is_what_both_spans_hold(left: Span, right: Span) -> None:
    common = addresses(left) & addresses(right)
    clip = left.clip(right)
    assert (addresses(clip) if clip else set()) == common


@given(SMALL, SMALL)
def test_a_span_covers_another_if_it_holds_all_its_addresses(left: Span, right: Span) -> None:
    assert left.covers(right) == (addresses(right) <= addresses(left))


@given(SMALL, st.integers(0, 99))
def test_a_span_holds_both_its_ends_and_all_between(span: Span, address: int) -> None:
    assert (address in span) == (address in addresses(span))


@pytest.mark.parametrize(("first", "last"), [(1, 0), (-1, 5), (-2, -1)])
def test_a_span_that_cannot_be_is_refused_by_its_numbers(first: int, last: int) -> None:
    with pytest.raises(ValueError, match=f"from {first:#x} to {last:#x}"):
        Span(first, last)


def test_a_span_of_no_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0x1000 to 0xfff"):
        Span.of(0x1000, 0)


@pytest.mark.parametrize(
    ("address", "granule", "answer"),
    [(0, 4096, True), (4096, 4096, True), (4095, 4096, False), (2048, 4096, False), (7, 1, True)],
)
def test_aligned_is_said_of_multiples(address: int, granule: int, answer: bool) -> None:
    assert aligned(address, granule) is answer

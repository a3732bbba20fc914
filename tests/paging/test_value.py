"""What a raw entry says, with its level."""

import pytest

from harness.paging.address import Span
from harness.paging.value import Value
from harness.paging.x86.formats import PAT, PS, RW, US, P
from tests.paging.spaces import FORMATS, SHORT

FOUR = FORMATS["x86-4"]
TOP = (1 << 64) - 1


@pytest.mark.parametrize(
    ("value", "true"),
    [
        (Value(FOUR, 0, 0), {"bottom", "none"}),
        (Value(FOUR, 3, 0), {"none"}),
        (Value(FOUR, 0, 0x1000 | P), {"bottom", "present", "leaf"}),
        (Value(FOUR, 0, 0x1000 | P | PAT), {"bottom", "present", "leaf"}),
        (Value(FOUR, 1, 0x20_0000 | P | PS), {"present", "leaf", "huge"}),
        (Value(FOUR, 2, 0x4000_0000 | P | PS), {"present", "leaf", "huge"}),
        (Value(FOUR, 1, 0x1000 | P | RW | US), {"present", "points"}),
        (Value(FOUR, 1, 0x2000 | P | PS), {"present", "bad"}),
        (Value(FOUR, 3, 0x1000 | P | PS), {"present", "bad"}),
        (Value(FOUR, 0, 1 << 45 | P), {"bottom", "present", "bad"}),
        (Value(FOUR, 1, 0x1000), set()),
        (Value(SHORT, 2, 0x8800_0800), {"present", "leaf", "huge"}),
        (Value(SHORT, 2, 0x8000_0800), {"present", "points"}),
        (Value(SHORT, 0, 0x8000_0040), {"bottom", "present", "leaf"}),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_value_answers_by_its_level(value: Value, true: set[str]) -> None:
    questions = {"bottom", "none", "present", "leaf", "huge", "points", "bad"}
    assert {question for question in questions if getattr(value, question)} == true


def test_the_frame_of_a_leaf_and_of_a_table_can_be_taken() -> None:
    assert Value(FOUR, 0, 0x1234_5000 | P | PAT).frame == 0x1234_5000
    assert Value(FOUR, 1, 0x1220_0000 | P | PS | 1 << 12).frame == 0x1220_0000
    assert Value(FOUR, 1, 0x1234_5000 | P).frame == 0x1234_5000


@pytest.mark.parametrize("raw", [0, 0x1000, 1 << 45 | P])
def test_what_leads_nowhere_has_no_frame(raw: int) -> None:
    with pytest.raises(ValueError, match="leads nowhere"):
        _ = Value(FOUR, 0, raw).frame


@pytest.mark.parametrize(
    ("level", "size"), [(0, 4 << 10), (1, 2 << 20), (2, 1 << 30), (3, 1 << 39)]
)
def test_size_and_mask_are_the_level_s(level: int, size: int) -> None:
    value = Value(FOUR, level, 0)
    assert value.size == size
    assert 0xFFFF_8765_4321_0FED & value.mask == 0xFFFF_8765_4321_0FED // size * size


@pytest.mark.parametrize(
    ("address", "span", "clipped"),
    [
        (0x1000, Span(0x1000, 0x5FFF), Span(0x1000, 0x1FFF)),
        (0x1234, Span(0x1000, 0x5FFF), Span(0x1234, 0x1FFF)),
        (0x1000, Span(0x1000, 0x1800), Span(0x1000, 0x1800)),
        (TOP - 0xFFF, Span(0x1000, TOP), Span(TOP - 0xFFF, TOP)),
        (TOP, Span(TOP, TOP), Span(TOP, TOP)),
    ],
)
def test_a_span_is_clipped_to_the_entry_and_never_wraps(
    address: int, span: Span, clipped: Span
) -> None:
    assert Value(FOUR, 0, 0).clip(address, span) == clipped

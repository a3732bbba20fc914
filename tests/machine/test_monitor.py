"""What becomes of the monitor's answers; what it says of a real guest is in test_guest."""

from __future__ import annotations

import pytest

from harness.machine.errors import ProtocolError
from harness.machine.monitor import TLB_FLAGS, parse_tlb


def row(virtual: int, physical: int, flags: str) -> str:
    return f"{virtual:016x}: {physical:016x} {flags}\r\n"


def test_every_row_of_info_tlb_is_read() -> None:
    rows = parse_tlb(
        row(0xFFFF_8000_0000_0000, 0x0000_ABCD_1234_5000, "XGPDACTUW")
        + row(0x0000_0000_0000_1000, 0x0000_0000_0020_0000, "---------")
        + row(0x0123_4567_89AB_C000, 0xFEDC_BA98_7654_3000, "X--D--T-W")
    )
    assert rows["virtual"].tolist() == [0xFFFF_8000_0000_0000, 0x1000, 0x0123_4567_89AB_C000]
    assert rows["physical"].tolist() == [0xABCD_1234_5000, 0x20_0000, 0xFEDC_BA98_7654_3000]
    flags = ["".join(name if one[name] else "-" for name in TLB_FLAGS) for one in rows]
    assert flags == ["XGPDACTUW", "---------", "X--D--T-W"]


def test_no_rows_are_an_empty_table() -> None:
    assert len(parse_tlb("")) == 0


@pytest.mark.parametrize(
    "text",
    [
        "PG disabled\r\n",
        row(1, 2, "---------")[:-1],
        row(1, 2, "---------").replace(":", ";"),
        "\x00",
    ],
)
def test_what_is_no_table_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError, match="info tlb") as caught:
        parse_tlb(text)
    assert caught.value.answer == text

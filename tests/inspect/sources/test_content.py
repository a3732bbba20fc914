"""A file is read where it is asked for, and what was read stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.inspect.snapshot import SourceError
from harness.inspect.sources.content import Content

UNIT = 0x1000


def written(path: Path, units: int, more: int = 0) -> bytes:
    """A file of bytes none of which is zero, and its content."""
    octets = bytes(1 + n // UNIT % 250 for n in range(units * UNIT + more))
    path.write_bytes(octets)
    return octets


@pytest.mark.parametrize(
    ("first", "size"),
    [(0, 1), (0xFFF, 2), (0x1000, 0x1000), (0x1FFF, 0x1002), (5, 0x5000), (0x7FFF, 9), (0x8000, 1)],
)
def test_a_part_has_the_bytes_of_the_file_and_ends_with_it(
    tmp_path: Path, first: int, size: int
) -> None:
    octets = written(tmp_path / "file", 8, 3)
    content = Content.of_file(tmp_path / "file")
    assert content.part(first, size).tobytes() == octets[first : first + size]
    assert len(content) == len(octets)


def test_what_lies_between_is_not_read(tmp_path: Path) -> None:
    octets = written(tmp_path / "file", 10)
    content = Content.of_file(tmp_path / "file")
    content.ask(np.array([0x10, 0x2008, 0x2010, 0x5000, 0x6FF8, 0x9000], np.uint64))
    units = content.octets.reshape(-1, UNIT)
    read = [bool(unit.any()) for unit in units]
    assert read == [unit in (0, 2, 5, 6, 9) for unit in range(10)]
    for unit in (0, 2, 5, 6, 9):
        assert units[unit].tobytes() == octets[unit * UNIT : (unit + 1) * UNIT]


def test_what_was_read_once_is_not_read_again(tmp_path: Path) -> None:
    octets = written(tmp_path / "file", 3)
    content = Content.of_file(tmp_path / "file")
    content.part(0, UNIT)
    (tmp_path / "file").write_bytes(bytes([255]) * 3 * UNIT)
    assert content.part(0, 2 * UNIT).tobytes() == octets[:UNIT] + bytes([255]) * UNIT


def test_a_block_device_has_the_size_that_seeking_its_end_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = written(tmp_path / "device", 2)
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    monkeypatch.setattr(Path, "is_block_device", lambda _: True)
    assert Content.of_file(tmp_path / "device").part(0, 2 * UNIT).tobytes() == octets
    monkeypatch.setattr(Path, "is_block_device", lambda _: False)
    with pytest.raises(SourceError, match="it is no file that has an end"):
        Content.of_file(tmp_path / "device")

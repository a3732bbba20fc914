"""A block gives as many bytes as it must, or a sentence."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from pathlib import Path

import cramjam
import lzallright
import pytest

from harness.inspect.snapshot import SourceError
from harness.inspect.sources.compressed import WAYS, unpacked

PAGE = bytes(range(256)) * 16
PACK: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "lzo": lambda page: bytes(lzallright.LZOCompressor().compress(page)),
    "snappy": lambda page: bytes(cramjam.snappy.compress_raw(page)),
    "zstd": lambda page: bytes(cramjam.zstd.compress(page)),
}
CORE = Path("core")


def test_every_way_is_tried() -> None:
    assert PACK.keys() == WAYS.keys()


@pytest.mark.parametrize("way", WAYS)
def test_a_block_of_another_size_is_damaged_be_it_by_a_byte(way: str) -> None:
    assert unpacked(CORE, way, PACK[way](PAGE), len(PAGE)).tobytes() == PAGE
    for other in PAGE + b"x", PAGE[:-1], PAGE * 2:
        with pytest.raises(SourceError, match="core is damaged: a block of"):
            unpacked(CORE, way, PACK[way](other), len(PAGE))
    with pytest.raises(SourceError, match=f"is not what {way} writes|bytes, not 4,096"):
        unpacked(CORE, way, b"\xff" * 40, len(PAGE))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SourceError, match="compressed by zstd, which takes the package cramjam:"):
        unpacked(CORE, "zstd", PACK["zstd"](PAGE), len(PAGE))

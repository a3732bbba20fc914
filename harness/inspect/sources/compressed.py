"""Blocks of memory that a capture or a core holds compressed.

zlib is Python's own.  The others are those of the optional packages cramjam and lzallright, which
have wheels for every platform (`pip install pagetable-harness[formats]`).
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.inspect.snapshot import SourceError


def unpacked(path: Path, way: str, stored: bytes, size: int) -> npt.NDArray[np.uint8]:
    """The `size` bytes that a block of a file was before it was compressed in a way of WAYS.

    Raises SourceError where the package that knows the way is missing, or the block gives other
    than so many bytes.
    """
    octets = np.zeros(size, np.uint8)
    package, unpack = WAYS[way]
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise SourceError(
            f"{path} is compressed by {way}, which takes the package {package}: pip install"
            " 'pagetable-harness[formats]'"
        ) from None
    try:
        count = unpack(module, stored, octets)
    except Exception as error:  # each package has exceptions of its own
        raise SourceError(
            f"{path} is damaged: a block of {len(stored):,} bytes is not what {way} writes"
            f" ({type(error).__name__})"
        ) from None
    if count != size:
        raise SourceError(
            f"{path} is damaged: a block of {len(stored):,} bytes gives {count:,} bytes, not"
            f" {size:,}"
        )
    return octets


def _zlib(_: Any, stored: bytes, octets: npt.NDArray[np.uint8]) -> int:
    found = zlib.decompressobj().decompress(stored, len(octets) + 1)
    return _copied(found, octets)


def _lzo(module: Any, stored: bytes, octets: npt.NDArray[np.uint8]) -> int:
    return _copied(module.LZOCompressor.decompress(stored, len(octets)), octets)


def _snappy(module: Any, stored: bytes, octets: npt.NDArray[np.uint8]) -> int:
    if (size := int(module.snappy.decompress_raw_len(stored))) != len(octets):
        return size
    return int(module.snappy.decompress_raw_into(stored, octets))


def _zstd(module: Any, stored: bytes, octets: npt.NDArray[np.uint8]) -> int:
    return int(module.zstd.decompress_into(stored, octets))


def _copied(found: bytes, octets: npt.NDArray[np.uint8]) -> int:
    if len(found) == len(octets):
        octets[:] = np.frombuffer(found, np.uint8)
    return len(found)


WAYS: Final[Mapping[str, tuple[str, Callable[[Any, bytes, npt.NDArray[np.uint8]], int]]]] = (
    MappingProxyType(
        {
            "zlib": ("zlib", _zlib),
            "lzo": ("lzallright", _lzo),
            "snappy": ("cramjam", _snappy),
            "zstd": ("cramjam", _zstd),
        }
    )
)
"""The ways in which blocks are compressed: the package that knows it, and how that fills an array
and says how many bytes there are."""

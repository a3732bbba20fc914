"""Files that people or this program wrote: layouts, cases and reports.

They are read wholly, and so no more than such a file can be: not all that a device gives, nor a
file of gigabytes that was named by mistake.  They are written wholly or not at all, and never
through a link: in a directory that others may write to, that would be a file of their choice.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

LONGEST: Final = 1 << 22
"""Bytes of such a file."""


def read(path: Path) -> bytes:
    """What the file holds; OSError where it cannot be read, or is too long."""
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def text(path: str | Path) -> str:
    """The text that the file holds; ValueError, a sentence, where it cannot be read or is none."""
    try:
        return read(Path(path)).decode()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a name of a file: {error}") from None


def write(path: Path, text: str) -> None:
    """Makes the file hold this text, in place of what is there, a link too; OSError where that
    fails."""
    beside = path.with_name(f".{os.urandom(8).hex()}.part")  # a name that no other file has
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise

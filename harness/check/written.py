"""Files that people or this program wrote: layouts, cases and reports.

They are read wholly, and so no more than such a file can be: not all that a device gives, nor a
file of gigabytes that was named by mistake.
"""

from __future__ import annotations

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

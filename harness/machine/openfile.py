"""Files that are read in place, and not mapped: the kernel kills a process that reads what another
has cut off a file that it mapped (SIGBUS)."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from weakref import finalize

import numpy as np
import numpy.typing as npt


class OpenFile:
    """A file that is open for reading as long as anyone holds this; raises OSError where it can
    not be opened.  A pipe is not waited for.
    """

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        finalize(self, os.close, self.number)

    def data(self, place: int) -> int:
        """Where, from a place on, something is stored, and no hole; the end where nothing is."""
        try:
            return os.lseek(self.number, place, os.SEEK_DATA)
        except OSError as error:
            end = os.lseek(self.number, 0, os.SEEK_END)
            return end if error.errno == errno.ENXIO else min(place, end)

    def fill(self, octets: npt.NDArray[np.uint8], place: int) -> int:
        """Reads the bytes from `place` on, and says how many there are: fewer than the array has
        where the file ends.  Raises OSError where it cannot be read."""
        flat = octets.ravel()
        done = 0
        while done < len(flat):
            count = os.preadv(self.number, [flat[done:].data], place + done)
            if not count:
                break
            done += count
        return done

"""Known departures of QEMU's TCG from s390's rules: none was found.

What it lacks is no departure: the enhanced-DAT facilities, of which it says that they are not there
(STFLE, in all versions that were run), and key-controlled protection, which no case asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.check.quirk import Quirk, Version, not_yet_run

RUNS: Final[tuple[Version, ...]] = ((7, 2, 22), (10, 0, 13), (11, 1, 3))
"""The versions of QEMU on which all layouts of s390 were run."""

KNOWN: Final[Mapping[str, Quirk]] = {}


def not_run_on(version: Version) -> tuple[str, ...]:
    """That TCG was not yet run in this version, in a sentence; none where it was."""
    return not_yet_run({"tcg": (version, RUNS)})

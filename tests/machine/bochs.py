"""The Bochs that tests run on, and the skip where it cannot run."""

from __future__ import annotations

import os
from functools import cache

import pytest

from harness.machine.x86.engines import why_absent

PROGRAM = os.environ.get("BOCHS", "bochs")


@cache
def absent() -> str | None:
    """Why it cannot run here; None if it can."""
    return why_absent("bochs", program=PROGRAM)


def needs_bochs() -> None:
    """Skips the test, with the reason, where it cannot run."""
    if absent():
        pytest.skip(f"bochs cannot run here: {absent()}")

"""What a space can refuse."""

from __future__ import annotations


class SpaceError(ValueError):
    """A request that a space cannot fulfil; the space is as it was before."""


class OutOfTables(SpaceError):  # noqa: N818 - it names the condition, as in the message
    """There is no memory for another table."""

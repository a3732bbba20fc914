"""What a space can refuse, and what can be refused of one."""

from __future__ import annotations


class SpaceError(ValueError):
    """A request that a space cannot fulfil; the space is as it was before."""


class Taken(SpaceError):  # noqa: N818 - it names the condition, as in the message
    """Something is where an entry was to be put."""


class OutOfTables(SpaceError):  # noqa: N818 - it names the condition, as in the message
    """There is no memory for another table."""


class TooManyTables(ValueError):  # noqa: N818 - it names the condition
    """A space has more tables than were to be looked at; they may be no tables at all."""

"""Answers side by side, and the verdict on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from harness.paging.walk import Walk

PROBE = "probe"
"""The oracle that is asked most: an access that a guest makes."""


class Access(Protocol):
    """An access, as every architecture has it.  As text it is what people call it."""

    @property
    def kind(self) -> IntEnum:
        """Read, write, fetch, or what else there is."""

    @property
    def user(self) -> bool:
        """Whether the user makes it, and not the supervisor."""


@dataclass(frozen=True)
class Disagreement:
    """One question to which an oracle and the reference answer differently.

    oracle    who was asked
    address   the virtual address of the question, or the physical one of table bytes
    access    the access that a probe made, None where the question was another
    expected  what the reference says, for people
    observed  what the oracle says, for people
    walk      the reference's walk of the address, None where there is none
    hint      a sentence on what it may come from, for people; empty where nothing is known
    count     how many questions of one cause it stands for
    flags     bits of the processor's state that were set in that access, and are no part of it
    """

    oracle: str
    address: int
    access: Access | None
    expected: str
    observed: str
    walk: Walk | None = None
    hint: str = ""
    count: int = 1
    flags: frozenset[str] = frozenset()


@dataclass
class Comparison:
    """What came of asking one oracle about one space.

    compared        questions with a verdict: agree, disagree or quirk
    disagreed       how many disagree
    disagreements   the first of these, with the details
    quirks          how often each known departure showed, by its name
    not_comparable  how many questions have no verdict, by the reason
    news            what was expected by way of quirks and did not come, with its count
    """

    oracle: str
    compared: int = 0
    disagreed: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    quirks: Counter[str] = field(default_factory=Counter)
    not_comparable: Counter[str] = field(default_factory=Counter)
    news: Counter[str] = field(default_factory=Counter)

    def disagree(self, count: int, examples: Iterable[Disagreement]) -> None:
        """Counts disagreements and keeps the examples."""
        self.disagreed += count
        self.disagreements.extend(examples)


@dataclass(frozen=True)
class Answer:
    """What one engine says of a case.

    engine    its name
    executor  who executed it, and in which version, as `bochs 3.0`; the engine where none did
    agrees    whether that is what the rules say, or what a known quirk of it is; None where it
              could not be asked
    said      the answer, or why there is none, for people
    """

    engine: str
    executor: str
    agrees: bool | None
    said: str


def answer_of(name: str, who: str, found: Comparison) -> Answer:
    """What an engine says, by the comparison that came of asking it one question."""
    if found.disagreements:
        return Answer(name, who, False, found.disagreements[-1].observed)
    if found.quirks:
        return Answer(name, who, True, f"departs, as {', '.join(found.quirks)} has it")
    return Answer(name, who, True, "as expected")


EXAMPLES = 5
"""Disagreements that an oracle describes in full; the others are counted."""

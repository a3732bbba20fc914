"""What accesses of POWER's matrix come to: by the rules, and by an engine with its quirks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.check.power.matrix.chain import Lanes
from harness.paging.address import Span
from harness.paging.memory import Mask, within
from harness.paging.power import bulk
from harness.paging.power.bulk import Outcomes
from harness.paging.power.cpu import Cpu


@dataclass(frozen=True)
class Expected:
    """What is expected of accesses, one a lane.

    found   by the rules of translation
    backed  whether there is memory where those allowed lead
    """

    found: Outcomes
    backed: Mask

    @property
    def allowed(self) -> Mask:
        """Which accesses translation lets through."""
        let: Mask = self.found.reason == 0
        return let

    def differs(self, other: Expected) -> Mask:
        """The lanes in which something else is expected to be seen."""
        one, two = self.found, other.found
        differs: Mask = (one.interrupt != two.interrupt) | (one.status != two.status)
        differs |= one.sets != two.sets
        marked = one.sets != 0  # of others it does not show where a walk ended
        differs |= marked & (one.walks.level != two.walks.level)
        differs |= (one.walks.physical != two.walks.physical) & self.allowed
        return differs


def expected(cpu: Cpu, made: Lanes, ram: Span) -> Expected:
    """What accesses come to on a processor, `ram` being what memory it has."""
    walks = bulk.walk_words(cpu, made.words, made.address)
    found = bulk.judge(cpu, walks, made.kind, made.user)
    backed = (found.reason != 0) | within(walks.physical, ram)
    return Expected(found, np.asarray(backed))

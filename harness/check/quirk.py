"""Known departures of engines from the rules, each with its evidence.

A quirk is expected of the engine it names, counted and shown; it never bends the reference.  It
excuses what it names in the lanes that it names, and nothing else.  What departs, and how, is the
architecture's: its folder has its quirks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.architectures import module_of
from harness.machine.machine import dotted

Version = tuple[int, ...]
"""That of an emulator, or the kernel's of a module that executes guests; the first numbers of one
begin a series: (7, 2) comes before 7.2.0."""


@dataclass(frozen=True, kw_only=True)
class Quirk:
    """One departure.

    engine    who departs: as `executor` names it, or a part of QEMU's monitor
    since     the first version, or series of versions, in which it was seen
    until     the first version in which it was gone; None unless its end was seen
    again     further spans of versions in which it is there, each as (since, until): stable series
              get a fault, and are mended, at other times than the versions that come after them
    runs      the versions on which it was run, and showed
    rule      what the manual says
    departs   what the engine does instead
    evidence  how that is known
    """

    name: str
    engine: str
    since: Version
    until: Version | None = None
    again: tuple[tuple[Version, Version], ...] = ()
    runs: tuple[Version, ...]
    rule: str
    departs: str
    evidence: str


def known_of(arch: str) -> Mapping[str, Quirk]:
    """Every departure of the engines that run an architecture, by its name: `KNOWN` of its module
    `quirks`."""
    found: Mapping[str, Quirk] = module_of(arch, "check", "quirks").KNOWN
    return found


def expected_of(quirk: Quirk, engine: str, version: Version) -> bool:
    """Whether a departure is to be expected of what `executor` names, in this version: from the
    first in which it was seen on, until one in which it was seen to be gone; and where it is there
    again."""
    spans = (quirk.since, quirk.until), *quirk.again
    return quirk.engine == engine and any(
        since <= version and (until is None or version < until) for since, until in spans
    )


def not_yet_run(asked: Mapping[str, tuple[Version, Collection[Version]]]) -> tuple[str, ...]:
    """Which of those that answer, by name, were not yet run in the version that each has here: a
    sentence each.

    asked  the version here, and those that were run

    What is expected of such a version is what was seen on the others. An engine of which nothing is
    known is expected to follow the rules in every version.
    """
    return tuple(
        f"{who} {dotted(version)}: not yet run on this version; runs of:"
        f" {', '.join(map(dotted, runs))}"
        for who, (version, runs) in asked.items()
        if version not in runs
    )

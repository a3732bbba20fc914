"""Faults in how the entries of a level are told apart."""

from __future__ import annotations

from dataclasses import replace

from harness.paging.format import Level, Pattern, Shape


def without_pages(here: Level) -> Level:
    """A level whose entries all point; level 0 as it is."""
    if here.pointer is None:
        return here
    when = Pattern(here.presence, here.presence)
    return here.changed(lambda shape: replace(shape, when=when) if shape.points else None)


def without_absence(here: Level) -> Level:
    """A level at which every entry is there."""
    there = replace(here, absent=())

    def present(shape: Shape) -> Shape:
        mask, value = shape.when
        return replace(shape, when=Pattern(mask & ~here.presence, value & ~here.presence))

    return there.changed(present)

"""Addresses, step by step, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.inspect import architecture
from harness.inspect.architecture import never_withheld
from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import Translation
from harness.report import state
from harness.report.decode import bits_text
from harness.report.html import space_map
from harness.report.html.page import page
from harness.report.text import letters
from harness.report.translation import stage_rows


def walk_page(snapshot: Snapshot, translations: Sequence[Translation]) -> str:
    """The page of one translation or several: pictures, steps, and the map of the space, on
    which the first is shown."""
    cpu = snapshot.cpu
    asked = ", ".join(f"{found.asked:#x}" for found in translations)
    return page(
        "walk.html",
        title=f"{asked} in {snapshot.title}",
        snapshot=snapshot,
        translations=translations,
        letters=_letters,
        stage_rows=stage_rows,
        bits_text=bits_text,
        manual=architecture.of(cpu).manual.replace(" volume", ""),
        register=state.of(cpu).root,
        map=space_map.as_object(replace(snapshot, cpu=translations[0].cpu)),
    )


def _letters(found: Translation) -> str:
    """The rights of a page that was found, by their letters."""
    return letters(found.cpu.format, found.effective, never_withheld(found.cpu))

"""Lines for people, as a terminal shows them: rights and verdicts in colour, and no line that is
wider than it. Elsewhere, in a pipe or a file, lines stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text

LABEL: Final = 12
"""Columns of a label and what is left of it, as `labelled` lines begin."""

_LABELLED: Final = re.compile(r"  [a-z][\w ]{0,8} +(?=\S)")
_HANGING: Final = 4

STYLES: Final = (
    # Rights as letters, by the weightiest: what can be written and executed, then each of the two.
    (r"(?<![\w-])[u-]r[wW]x(?![\w-])", "red"),
    (r"(?<![\w-])[u-]r[wW]-(?![\w-])", "green"),
    (r"(?<![\w-])[u-]r-x(?![\w-])", "yellow"),
    (r"(?<![\w-])[u-]r--(?![\w-])", "blue"),
    (r"\(withholds [a-z ]+\)", "yellow"),
    (r"#(PF|GP|SS)\b", "red"),
    (r"^error:|\b\d[\d,]* of \d[\d,]* [a-z ]+ disagrees?\b|^They disagree now:", "red"),
    (r"^warning:", "yellow"),
    (r"\ballowed\b|^They agree now\.|^(All )?\d[\d,]* [a-z ]+ agrees?\b", "green"),
    (r"^  (change|or)(?= {2,})", "cyan"),
)
"""What is coloured, in expressions of one line. There is no bold, so that without colours no line
has any escapes."""


def lines_of(text: str, width: int) -> Iterator[str]:
    """The lines of a text, those that are too wide in several."""
    for line in text.split("\n"):
        yield from folded(line, width)


def folded(line: str, width: int) -> Iterator[str]:
    """A line in pieces of at most this width, the rest of it indented: divided between columns
    where it has some, else between words. What has no blank stays whole."""
    label = _LABELLED.match(line)
    indented = len(line) - len(line.lstrip(" "))
    margin = min(LABEL if label and label.end() == LABEL else indented, width // 2)
    hanging = " " * min(margin + _HANGING, width // 2)
    least = margin + 1
    while len(line) > width:
        cut = line.rfind("  ", least, width + 1)
        if cut < 0:
            cut = line.rfind(" ", least, width + 1)
        if cut < 0:  # behind a word that is too long, such as a path
            cut = line.find(" ", width + 1)
        if cut < 0:
            break
        yield line[:cut].rstrip()
        line, least = hanging + line[cut:].lstrip(), len(hanging) + 1
    yield line


def show(text: str) -> None:
    """Prints lines on a terminal, in its width and in its colours, if it has some."""
    console = Console(highlight=False, emoji=False, markup=False)
    for line in lines_of(text, console.width):
        drawn = Text(line, end="")
        for expression, style in STYLES:
            drawn.highlight_regex(expression, style)
        console.print(drawn, soft_wrap=True)

"""What runs of pytest came to, by the JUnit files that they wrote: a line each, with the QEMU that
they ran on, and last of all the sum, as pytest prints it.

usage: python .ci/summary.py FILE...
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

OUTCOMES = {"failure": "failed", "error": "error", "skipped": "skipped"}
"""The element of a test case that did not pass, and what pytest calls that."""

ORDER = ("failed", "passed", "skipped", "error")


def outcomes(suite: ElementTree.Element) -> Counter[str]:
    """How many tests passed, and what became of the others."""
    return Counter(
        next((OUTCOMES[part.tag] for part in case if part.tag in OUTCOMES), "passed")
        for case in suite.iter("testcase")
    )


def engines(suite: ElementTree.Element) -> str:
    """What the plugin put into the head: who executed guests, in which version, or why not."""
    said = {
        str(one.get("name")).removeprefix("engine "): str(one.get("value"))
        for one in suite.iter("property")
        if str(one.get("name")).startswith("engine ")
    }
    return "; ".join(f"{name}: {value}" for name, value in sorted(said.items(), reverse=True))


def counted(counts: Counter[str]) -> str:
    """Counts as pytest prints them."""
    return ", ".join(f"{counts[what]} {what}" for what in ORDER if counts[what]) or "no tests ran"


def main(paths: list[str]) -> int:
    """Prints the lines; 1 where a run failed, or wrote no file."""
    total, seconds = Counter[str](), 0.0
    for path in map(Path, paths):
        try:
            suite = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError):
            print(f"{path}: not written, the run ended before")
            total["error"] += 1
            continue
        counts = outcomes(suite)
        total += counts
        seconds += sum(float(one.get("time", 0)) for one in suite.iter("testsuite"))
        print(f"{path}: {counted(counts)} ({engines(suite) or 'no engine ran'})")
    print(f"{counted(total)} in {seconds:.2f}s")
    return int(not total["passed"] or bool(total["failed"] or total["error"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Mutates the package and prints how many of the mutants its tests kill, and those that live.

Exit code: 0; 1 where a score is below what it must be, or what is listed as equivalent is not
in the source any more; 2 for a mistake in the call.
"""

from __future__ import annotations

import argparse
import importlib
import random
import shlex
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import inf, sqrt
from pathlib import Path

from tests.mutants.mutate import Mutant, mutants
from tests.mutants.run import KILLED, TIME, run

LISTED = Path("tests/mutants/equivalent")
"""Files of the mutants that no test can tell from the original, one for each part, and what of an
architecture is in it."""

TESTS = {
    "paging": ["tests/paging", "tests/inspect/x86/test_likely.py", "-m", "not hw"],
    "inspect": [
        "tests/inspect",
        *(f"tests/cli/test_{name}_command.py" for name in ("check", "prove")),
    ],
    "check": [
        "tests/check",
        "tests/inspect/test_held.py",
        *(f"tests/flushes/test_{name}.py" for name in ("cases", "command")),
        *(f"tests/cli/test_{name}_command.py" for name in ("check", "replay", "validate")),
    ],
}
"""What of the tests is run: those of the part itself, and commands that are run in this process."""

LEAST = {"paging": 1.0, "inspect": 0.95, "check": 0.95}
"""The share of the mutants not shown equivalent that must be killed."""

LOADED = ("jinja2", "numpy", "pexpect", "elftools.elf.elffile", "qemu.qmp", "rich.console", "typer")
"""What takes long to import and nothing of which is mutated."""

EQUIVALENT = "equivalent"

Key = tuple[str, str, str, str]
Endings = Iterator[tuple[Mutant, str]]


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for, part after part of the package."""
    asked = parse(arguments)
    paths = [path for named in asked.module for path in files(Path(named))]
    listed = equivalent(LISTED)
    every = {str(path): mutants(str(path)) for path in paths}
    stale = outdated(listed, every)
    for name in LOADED:
        importlib.import_module(name)
    print(f"seed {asked.seed}", flush=True)
    fails = bool(stale)
    for part, tests in TESTS.items():
        of_part = {path: found for path, found in every.items() if Path(path).parts[1] == part}
        if of_part:
            rng = random.Random(asked.seed)
            chosen = sample(of_part, asked.sample, rng) if asked.sample else of_part
            todo = [one for found in chosen.values() for one in found if key(one) not in listed]
            say = partial(print, flush=True)
            tried = partial(run, jobs=asked.jobs, most=asked.seconds, say=say)
            endings: Endings = tried(todo, asked.tests or tests)
            if asked.then:
                endings = one_after_the_other(endings, partial(tried, tests=asked.then))
            score = report(chosen, todo, endings)
            if score < LEAST[part]:
                print(f"{part}: {score:.1%} is below {LEAST[part]:.0%}")
                fails = True
    for gone in stale:
        print(f"{LISTED}: there is no such mutant any more: " + " | ".join(gone))
    return int(fails)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "module", nargs="*", help="files or directories; a sample of all unless given"
    )
    parser.add_argument("--sample", type=int, help="how many of each part, instead of all")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument(
        "--seconds", type=float, default=inf, help="most that the tests of one mutant may take"
    )
    parser.add_argument(
        "--tests", type=shlex.split, help="arguments for pytest: the tests to run, instead of all"
    )
    parser.add_argument(
        "--then", type=shlex.split, help="the same, for what lives: tests that cost more"
    )
    asked = parser.parse_args(arguments)
    if not asked.module:
        asked.module = [f"harness/{part}" for part in TESTS]
        asked.sample = asked.sample or 150
    for name in asked.module:
        path = Path(name)
        if path.is_absolute() or path.parts[:1] != ("harness",) or not path.exists():
            parser.error(f"{name} is no file or directory of harness")
        if len(path.parts) < 2 or path.parts[1] not in TESTS:
            parser.error(f"{name} is in none of the parts that are mutated: {', '.join(TESTS)}")
    for word in (*(asked.tests or ()), *(asked.then or ())):
        if "/" in word and not Path(word.partition("::")[0]).exists():
            parser.error(f"of tests there is no {word}")
    return asked


def files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def sample(
    every: dict[str, list[Mutant]], count: int, rng: random.Random
) -> dict[str, list[Mutant]]:
    """About `count` mutants, of each file as many as the root of their number suggests."""
    weight = sum(sqrt(len(found)) for found in every.values())
    return {
        path: rng.sample(found, min(len(found), round(count * sqrt(len(found)) / weight)))
        for path, found in every.items()
    }


def one_after_the_other(
    endings: Iterable[tuple[Mutant, str]], then: Callable[[Sequence[Mutant]], Endings]
) -> Endings:
    """How mutants end, those that live once other tests have tried them too."""
    lived = list[Mutant]()
    for mutant, ending in endings:
        if ending in (KILLED, TIME):
            yield mutant, ending
        else:
            lived.append(mutant)
            print(f"{ending}, and is tried again: {mutant}", flush=True)
    if lived:
        print(f"{len(lived)} are tried again", flush=True)
        yield from then(lived)


def key(mutant: Mutant) -> Key:
    return mutant.path, mutant.function, mutant.was, mutant.now


def equivalent(folder: Path) -> dict[Key, str]:
    """The mutants that no test can tell from the original, each with the reason."""
    found: dict[Key, str] = {}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["equivalent"]:
            for now in entry["now"]:
                found[entry["path"], entry["function"], entry["was"], now] = entry["why"]
    return found


def outdated(listed: dict[Key, str], every: dict[str, list[Mutant]]) -> list[Key]:
    """What is listed of these files and is no mutant of them, or of files that are gone."""
    known = {key(one) for found in every.values() for one in found}
    return [
        one for one in listed if (one[0] in every and one not in known) or not Path(one[0]).exists()
    ]


def report(
    chosen: dict[str, list[Mutant]], todo: Sequence[Mutant], tried: Endings
) -> float:
    """Prints those that live as they come, and a table; the share that does not."""
    begin = time.monotonic()
    endings: dict[str, Counter[str]] = {path: Counter() for path in chosen}
    for number, (mutant, ending) in enumerate(tried, 1):
        endings[mutant.path][ending] += 1
        if ending not in (KILLED, TIME):
            print(f"{ending}: {mutant}", flush=True)
        if not number % 100:
            print(f"{number} of {len(todo)} after {time.monotonic() - begin:.0f} s", flush=True)
    for path, found in chosen.items():
        endings[path][EQUIVALENT] = len(found) - endings[path].total()
    total = sum(endings.values(), Counter[str]())
    print(f"{'':32}{'mutants':>8}{KILLED:>8}{TIME:>13}{EQUIVALENT:>12}{'live':>6}   score")
    for path, counts in [*endings.items(), ("all", total)]:
        print(line(path, counts))
    return rate(total)


def rate(counts: Counter[str]) -> float:
    tried = counts.total() - counts[EQUIVALENT]
    return (counts[KILLED] + counts[TIME]) / tried if tried else 1.0


def line(path: str, counts: Counter[str]) -> str:
    live = counts.total() - counts[KILLED] - counts[TIME] - counts[EQUIVALENT]
    return (
        f"{path:32}{counts.total():8}{counts[KILLED]:8}{counts[TIME]:13}"
        f"{counts[EQUIVALENT]:12}{live:6}  {rate(counts):6.1%}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What came of proving a program's tables, for people, for programs and as JUnit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any
from xml.etree import ElementTree

from harness.inspect.expect import Expect
from harness.inspect.prove import Proved
from harness.report import check, files
from harness.report.expect import as_object as unmet_object
from harness.report.expect import unmet_lines
from harness.report.impassable import impassable_lines
from harness.report.terminal import print_all
from harness.report.text import answer_lines, counted, disagreement_lines


def as_object(proved: Proved, allow: Collection[str]) -> dict[str, Any]:
    """A proof as what JSON can hold."""
    snapshot, others = proved.checked.snapshot, _left_out(proved)
    return {
        **check.as_object(proved.checked),
        "command": "prove",
        "expected": None if proved.meant is None else len(proved.meant.expects) - others,
        "other_levels": others,
        "strict": proved.meant is not None and proved.meant.strict,
        "unmet": [unmet_object(snapshot, one) for one in proved.unmet],
        "impassable": list(never(proved, allow)),
        "left_out": list(proved.left_out),
    }


def show(proved: Proved, allow: Collection[str]) -> None:
    """Prints a table of the oracles, what was left out, and all that is wrong in full."""
    print_all(check.table(proved.checked), _sections(proved, allow), _verdict(proved, allow))


def failed(proved: Proved, allow: Collection[str]) -> bool:
    """Whether anything is wrong with the tables, or with what the machine makes of them."""
    disagreed = check.disagreed(proved.checked)
    return bool(disagreed or proved.unmet or next(never(proved, allow), None))


def never(proved: Proved, allow: Collection[str]) -> Iterator[str]:
    """What of the tables no access can pass, in lines."""
    snapshot = proved.checked.snapshot
    return impassable_lines(snapshot.cpu, snapshot.memory, allow, "--allow {}")


def _sections(proved: Proved, allow: Collection[str]) -> Iterator[tuple[str, Iterable[str]]]:
    if proved.left_out:
        yield "Left out", proved.left_out
    yield from check.sections(proved.checked)
    if said := list(never(proved, allow)):
        yield "No access passes", said
    if proved.unmet:
        yield "Not as expected", unmet_lines(proved.checked.snapshot, proved.unmet)


def _verdict(proved: Proved, allow: Collection[str]) -> str:
    said = [check.verdict(proved.checked)]
    if proved.meant is not None:
        others = _left_out(proved)
        every = len(proved.meant.expects) - others
        missed = len({id(one.expect) for one in proved.unmet if one.expect is not None})
        share = "All" if every > 1 and not missed else f"{every - missed:,} of"
        if every:
            are = "is" if every == 1 else "are"
            said.append(f"{share} {counted(every, 'expectation')} {are} met.")
        if proved.meant.strict:
            more = any(one.expect is None for one in proved.unmet)
            said.append(f"{'Something else' if more else 'Nothing else'} is mapped (strict).")
        if others:
            left = f"{counted(others, 'expectation')} of other numbers of levels"
            said.append(f"{left} {'is' if others == 1 else 'are'} left out.")
    if next(never(proved, allow), None):
        said.append("Some entries can be passed by no access.")
    return " ".join(said)


def as_junit(proved: Proved, allow: Collection[str], seconds: float) -> str:
    """A proof as JUnit XML: a test case for the machine, for entries that nothing passes, and for
    each expectation; engine and versions in the head."""
    checked = proved.checked
    suite = ElementTree.Element("testsuite", name="pagetable prove", time=f"{seconds:.3f}")
    properties = ElementTree.SubElement(suite, "properties")
    head = {"engine": checked.engine, "qemu": checked.qemu, **files.versions()}
    if checked.not_run_on:
        head["not_run_on"] = "; ".join(checked.not_run_on)
    if proved.left_out:
        head["left_out"] = "; ".join(proved.left_out)
    for name, value in head.items():
        ElementTree.SubElement(properties, "property", name=name, value=value)
    case = partial(_case, suite)
    lines = ((*disagreement_lines(one), *answer_lines(answers)) for one, answers in checked.told)
    case("machine", [line for some in lines for line in some])
    case("passable", list(never(proved, allow)))
    if proved.meant is not None:
        cpu = checked.snapshot.cpu
        for number, expect in enumerate(proved.meant.expects, 1):
            levels = expect.part(cpu).levels
            skipped = "" if expect.applies(cpu) else f"these tables have {levels} levels"
            case(_name(proved, expect, number), _missed(proved, expect), skipped)
        if proved.meant.strict:
            case("nothing else", _missed(proved, None))
    return files.finished(suite)


def _left_out(proved: Proved) -> int:
    """How many expectations are of other numbers of levels."""
    if proved.meant is None:
        return 0
    return len(proved.meant.expects) - len(proved.meant.at(proved.checked.snapshot.cpu))


def _name(proved: Proved, expect: Expect, number: int) -> str:
    span = expect.span(proved.checked.snapshot.cpu)
    return f"{expect.where or f'expect {number}'}: {span}"


def _missed(proved: Proved, expect: Expect | None) -> list[str]:
    own = [one for one in proved.unmet if one.expect is expect]
    return list(unmet_lines(proved.checked.snapshot, own))


def _case(suite: ElementTree.Element, name: str, wrong: list[str], skipped: str = "") -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="pagetable.prove", name=name)
    if skipped:
        ElementTree.SubElement(case, "skipped", message=skipped)
    if wrong:
        ElementTree.SubElement(case, "failure", message=wrong[0]).text = "\n".join(wrong)

"""The picture of a walk, read back from its text: fields are split as SDM volume 3A, 4.3 to 4.5,
splits addresses."""

from __future__ import annotations

import io
import re
import subprocess
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.walk import Walk, walk
from harness.paging.x86.cpu import Cpu, Mode
from harness.report.diagram import Denial, picture

SVG = "{http://www.w3.org/2000/svg}"


def walked(cpu: Cpu, address: int, words: dict[int, int]) -> Walk:
    """The walk of an address through entries, given by where they are; memory ends at 0x8000."""
    memory = BufferMemory(np.zeros(0x8000, np.uint8))
    for place, word in words.items():
        memory.store(place, cpu.format.entry_bytes, word)  # type: ignore[arg-type]
    root = root_for(cpu, Virtual(address))
    assert root is not None
    return walk(memory, root, Virtual(address))


def texts(walk: Walk, kind: str) -> list[str]:
    """The texts of a kind in the picture, from the left."""
    parsed = ElementTree.fromstring(picture(walk, "CR3", "<note> & more"))
    found = [text for text in parsed.iter(f"{SVG}text") if kind in text.attrib["class"].split()]
    found.sort(key=lambda text: float(text.attrib["x"]))
    return ["".join(text.itertext()) for text in found]


UPPER = 0xFFFF_8000_4060_7ABC
"""Slots 256, 1, 3 and 7, and the offset abc."""

MAPPED = {0x800: 0x1007, 0x1008: 0x2007, 0x2018: 0x3003, 0x3038: 0x5061 | 1 << 63}


def test_a_walk_shows_each_field_its_index_the_entry_and_the_physical_address() -> None:
    found = walked(Cpu.long_mode(4, 0), UPPER, MAPPED)
    assert texts(found, "address") == ["0xffff800040607abc"]
    assert texts(found, "digits") == [
        "0xffff",
        "100000000",
        "000000001",
        "000000011",
        "000000111",
        "101010111100",
    ]
    raws = ["0000000000001007", "0000000000002007", "0000000000003003", "8000000000005061"]
    assert texts(found, "raw") == [*raws, "+ 0xabc"]
    assert texts(found, "physical") == ["0x5abc"]
    assert texts(found, "rights") == ["urwx", "urwx", "-rwx", "-r--", "-r--"]
    assert texts(found, "note") == ["<note> & more"]


def test_fields_are_named_by_their_bits() -> None:
    found = walked(Cpu.long_mode(4, 0), UPPER, MAPPED)
    named = [text for text in texts(found, "small") if ":" in text]
    assert named == ["63:48", "47:39", "38:30", "29:21", "20:12", "11:0"]


def test_the_first_slot_of_a_table_is_the_lowest_beside_its_address() -> None:
    found = walked(Cpu.long_mode(4, 0), 0xFFFF_FF80_0000_0000, {0xFF8: 0x1007})
    parsed = ElementTree.fromstring(picture(found, "CR3"))
    entries = [
        float(part.attrib["y"])
        for part in parsed.iter(f"{SVG}rect")
        if "entry" in part.attrib.get("class", "").split()
    ]
    (table,) = {
        float(part.attrib["y"]) + float(part.attrib["height"])
        for part in parsed.iter(f"{SVG}rect")
        if "table" in part.attrib.get("class", "").split()
    }
    last, first = entries  # slot 511 of the root, slot 0 below it
    assert last < first
    assert first == pytest.approx(table - 22)


def test_set_bits_are_filled_and_clear_ones_are_not() -> None:
    parsed = ElementTree.fromstring(picture(walked(Cpu.long_mode(4, 0), UPPER, MAPPED), "CR3"))
    chips = [
        (float(text.attrib["x"]), text.text, "set" in text.attrib["class"].split())
        for text in parsed.iter(f"{SVG}text")
        if "chip" in text.attrib["class"].split()
    ]
    last = max(x for x, _, _ in chips) - 168
    leaf = {name: is_set for x, name, is_set in chips if x > last}
    assert leaf == {"P": True, "W": False, "U": False, "A": True, "D": True, "XD": True}


@pytest.mark.parametrize(
    ("words", "said", "missing"),
    [
        ({0x800: 0x1007}, "not present", 2),
        ({0x800: 0x1087}, "reserved: 0x80 PS where", 3),
        ({0x800: 0x9007}, "no memory at 0x9008", 2),
    ],
)
def test_a_walk_that_ends_early_shows_why_and_which_bits_were_not_used(
    words: dict[int, int], said: str, missing: int
) -> None:
    found = walked(Cpu.long_mode(4, 0), UPPER, words)
    assert any(line.startswith(said) for line in texts(found, "meaning"))
    assert texts(found, "unused") == [f"{UPPER & (1 << 12 + 9 * missing) - 1:#x}"]
    assert texts(found, "physical") == []


def test_a_large_page_takes_the_fields_below_as_its_offset() -> None:
    found = walked(Cpu.long_mode(4, 0), UPPER, {0x800: 0x1007, 0x1008: 0x4000_0087})
    assert texts(found, "digits")[-1] == "0x607abc"
    assert texts(found, "physical") == ["0x40607abc"]


def test_32_bit_addresses_have_two_fields_of_ten_bits() -> None:
    cpu = Cpu.in_mode(Mode.BITS_32, 0)
    found = walked(cpu, 0xFFC0_1ABC, {0xFFC: 0x1007, 0x1004: 0x5007})
    assert texts(found, "digits") == ["1111111111", "0000000001", "101010111100"]
    assert texts(found, "physical") == ["0x5abc"]


def test_nothing_is_drawn_outside_the_picture() -> None:
    for words in (MAPPED, {0x800: 0x1007}, {0x800: 0x1087}):
        parsed = ElementTree.fromstring(picture(walked(Cpu.long_mode(4, 0), UPPER, words), "CR3"))
        _, _, width, height = map(float, parsed.attrib["viewBox"].split())
        for part in parsed.iter():
            if "y" in part.attrib:
                assert 0 <= float(part.attrib["x"]) <= width
                assert 0 <= float(part.attrib["y"]) <= height


def drawn_by_librsvg(svg: str) -> Image.Image:
    """The picture as what is no browser draws it."""
    done = subprocess.run(
        ["rsvg-convert", "--format", "png"], input=svg.encode(), capture_output=True, check=True
    )
    return Image.open(io.BytesIO(done.stdout)).convert("RGB")


def ink_at(image: Image.Image, x: float, y: float) -> bool:
    """Whether something is drawn on the paper within a pixel of a point."""
    around = [(int(x) + dx, int(y) + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    inside = [(a, b) for a, b in around if 0 <= a < image.width and 0 <= b < image.height]
    return any(image.getpixel(point) != (255, 255, 255) for point in inside)


@pytest.mark.parametrize("words", [MAPPED, {0x800: 0x1007}, {0x800: 0x1087}, {0x800: 0x9007}])
def test_every_box_line_and_arrow_is_drawn_outside_browsers_too(words: dict[int, int]) -> None:
    svg = picture(walked(Cpu.long_mode(4, 0), UPPER, words), "CR3")
    image, parsed = drawn_by_librsvg(svg), ElementTree.fromstring(svg)
    corners = [
        (float(box.attrib["x"]), float(box.attrib["y"]))
        for box in parsed.iter(f"{SVG}rect")
        if box.attrib["class"] != "paper"
    ]
    starts = [
        tuple(map(float, re.findall(r"-?[0-9.]+", path.attrib["d"])[:2]))
        for path in parsed.iter(f"{SVG}path")
    ]
    assert len(corners) > 3 and len(starts) > 2
    assert [point for point in (*corners, *starts) if not ink_at(image, *point)] == []
    assert "var(" not in svg


def test_the_address_in_an_entry_is_set_apart_from_its_flags() -> None:
    """Bits 39:12 of a pointer or of a 4-KByte page, with MAXPHYADDR 40 (figure 4-11)."""
    found = walked(Cpu.long_mode(4, 0), UPPER, MAPPED)
    parsed = ElementTree.fromstring(picture(found, "CR3"))
    spans = [
        [(part.attrib["class"], part.text) for part in text]
        for text in parsed.iter(f"{SVG}text")
        if len(text)
    ]
    assert spans[0] == [
        ("flag-bits", "000000"),
        ("address-bits", "0000001"),
        ("flag-bits", "007"),
    ]
    assert spans[3] == [
        ("flag-bits", "800000"),
        ("address-bits", "0000005"),
        ("flag-bits", "061"),
    ]


def test_tables_and_entries_have_their_own_names_and_the_walk_begins_at_its_register() -> None:
    found = walked(Cpu.long_mode(4, 0), UPPER, MAPPED)
    names = ["CR3", "PML4", "PDPT", "page directory", "page table", "4K page"]
    assert texts(found, "name") == names
    small = texts(found, "small")
    assert {"PML4E 256", "PDPTE 1", "PDE 3", "PTE 7"} <= set(small)
    assert texts(found, "meaning")[:3] == [
        "PDPT at 0x1000",
        "page directory at 0x2000",
        "page table at 0x3000",
    ]
    pae = replace(Cpu.in_mode(Mode.PAE, 0), pdptes=(0x1001, 0x2001, 0, 0))
    assert texts(walked(pae, 0x4000_0000, {}), "name")[:2] == ["PDPTE 1", "page directory"]


def test_every_bit_that_is_drawn_is_in_the_legend() -> None:
    found = walked(Cpu.long_mode(4, 0), UPPER, MAPPED)
    legend = " ".join(texts(found, "small"))
    for name in {name.partition("=")[0] for name in texts(found, "chip")}:
        assert re.search(rf"(^| ){name} [a-z]", legend), name


def test_a_denied_access_is_drawn_at_the_entries_that_deny_it() -> None:
    found = walked(Cpu.long_mode(4, 0), UPPER, MAPPED)
    denying = found.steps[2].slot
    said = "user write: #PF"
    one = Denial(said, frozenset([denying]))
    drawn = ElementTree.fromstring(picture(found, "CR3", denial=one))
    wrong = [one for one in drawn.iter(f"{SVG}rect") if "wrong" in one.attrib["class"]]
    columns = sorted(
        float(one.attrib["x"])
        for one in drawn.iter(f"{SVG}rect")
        if "entry" in one.attrib["class"].split()
    )
    assert [float(one.attrib["x"]) for one in wrong] == [columns[2]]
    notes = [one.text for one in drawn.iter(f"{SVG}text") if one.attrib["class"] == "denial"]
    assert notes == ["denied by this PDE", said]
    assert not any(
        "wrong" in one.attrib["class"]
        for one in ElementTree.fromstring(picture(found, "CR3")).iter(f"{SVG}rect")
    )

"""Sources in one word, as `diff` takes them."""

from __future__ import annotations

import pytest

from harness.cli.source import Source
from harness.machine.errors import Misuse


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("layout:linux-5", {"layout": "linux-5"}),
        ("layout:dir/a.toml@4", {"layout": "dir/a.toml", "levels": 4}),
        ("layout:a@b.toml,levels=4", {"layout": "a@b.toml", "levels": 4}),
        ("case:a,b.json", {"case": "a,b.json"}),
        ("ram:a,b:c,cr3=0x1000,cr4=0x20", {"ram": ["a,b:c"], "cr3": "0x1000", "cr4": "0x20"}),
        ("ram:a,cr5=1,maxphyaddr=36", {"ram": ["a,cr5=1"], "maxphyaddr": "36"}),
        ("ram:a@0,ram=b@1,cr3=0,ram=d", {"ram": ["a@0", "b@1", "d"], "cr3": "0"}),
    ],
)
def test_a_word_says_what_the_options_say(text: str, options: dict[str, object]) -> None:
    said = {
        name: str(value) if name == "case" else value
        for name, value in vars(Source.named(text)).items()
        if value not in (None, False)
    }
    assert said == options


@pytest.mark.parametrize("text", ["", "linux-5", "disk:a", "layout:", "ram:,cr3=1"])
def test_a_word_that_names_no_source_is_misuse(text: str) -> None:
    with pytest.raises(Misuse, match="names no source"):
        Source.named(text)

"""Rights as expectations write them: what is recommended is accepted."""

import re

import pytest

from harness.architectures import NAMES, has
from harness.inspect.expect import expectations
from harness.inspect.snapshot import QuestionError


@pytest.mark.parametrize("arch", [name for name in NAMES if has(name, "inspect", "asked")])
def test_rights_that_a_refusal_recommends_are_taken(arch: str) -> None:
    with pytest.raises(QuestionError) as refused:
        expectations({0x40_0000: "r?"}, False, arch)
    recommended = re.findall(r"like ([urwxk-]+)", str(refused.value))
    assert len(recommended) == 2
    for rights in recommended:
        expectations({0x40_0000: rights}, False, arch)


def test_arm64_names_five_rights() -> None:
    with pytest.raises(QuestionError, match=r"'ur-x', no rights: .* missing, like ur-x-$"):
        expectations({0x40_0000: "ur-x"}, False, "arm64")

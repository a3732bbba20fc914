"""Files of a known form are taken where every value has its type, all others refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from harness.check.typed import Number, decode, made


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: bool
    name: str = "some"


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: Number
    count: int = 3
    access: Inner | None = None


@pytest.mark.parametrize(
    ("text", "number"),
    [("0x1000", 0x1000), ("12", 12), ("0b101", 5), ("-1", -1), ("0xffffffffffffffff", 2**64 - 1)],
)
def test_a_number_is_text_in_any_base_that_python_reads(text: str, number: int) -> None:
    found = decode(f'{{"address": "{text}"}}'.encode(), Form)
    assert (found.address, found.count, found.access) == (number, 3, None)
    assert isinstance(found.address, Number)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"address": 16}', "address: expected text like '0x1000', got int"),
        ('{"address": null}', "address: expected text like '0x1000', got NoneType"),
        ('{"address": "x"}', "address: expected text like '0x1000', got other text"),
        ('{"address": "1", "count": true}', "count: expected int, got bool"),
        ('{"address": "1", "count": "1"}', "count: expected int, got text"),
        ('{"address": "1", "access": {"user": 1}}', "access.user: expected bool, got int"),
        ('{"address": "1", "access": {"user": true, "name": 1}}', "access.name: expected text"),
        ('{"address": "1", "other": 1}', "object contains unknown field other"),
        ("{}", "object missing required field address"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        decode(text.encode(), Form)
    assert str(refused.value).startswith(said)
    assert type(refused.value) is ValueError


@pytest.mark.parametrize(
    ("text", "form"),
    [(b"{", Form), (b"", Form), (b"[" * 100_000, Any), (b'{"address": "\xff"}', Form)],
    ids=["open", "empty", "too deep", "no text"],
)
def test_what_is_no_json_is_said_to_be_none(text: bytes, form: Any) -> None:
    with pytest.raises(ValueError, match=r"^it is not JSON: ") as refused:
        decode(text, form)
    assert type(refused.value) is ValueError


@dataclass(frozen=True)
class Control:
    wp: bool = True
    pkru: int = 0


def test_a_dataclass_is_made_of_the_values_that_are_there() -> None:
    assert made(Control, {}, "control") == Control()
    assert made(Control, {"pkru": 3}, "control") == Control(pkru=3)
    assert made(Control, {"wp": False, "pkru": 1}, "control") == Control(False, 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"wo": True}, "control: there is no 'wo' here: "),
        ({"wp": 1}, "control.wp: expected bool, got int"),
        ({"pkru": "1"}, "control.pkru: expected int, got text"),
    ],
)
def test_a_value_that_a_dataclass_cannot_have_is_named(
    values: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        made(Control, values, "control")
    assert str(refused.value).startswith(said)

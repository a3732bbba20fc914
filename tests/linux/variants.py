"""The ways in which the guest's Linux sets up paging, and which tests are for which."""

from __future__ import annotations

import pytest

from images.linux.machine import RiscvVariant, Variant

X86 = [Variant(levels, isolated) for levels in (4, 5) for isolated in (False, True)]
RISCV = [RiscvVariant(levels) for levels in (3, 4, 5)]
VARIANTS = [*X86, *RISCV]


def _only(variants: list[Variant] | list[RiscvVariant]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("linux", variants, indirect=True, scope="session", ids=str)


on_x86, on_riscv = _only(X86), _only(RISCV)

"""The ways in which the guest's Linux sets up paging, and which tests are for which."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from images.linux.machine import AnyVariant, Arm64Variant, RiscvVariant, Variant

X86 = [Variant(levels, isolated) for levels in (4, 5) for isolated in (False, True)]
RISCV = [RiscvVariant(levels) for levels in (3, 4, 5)]
ARM64 = [Arm64Variant(levels) for levels in (4, 5)]
"""Those whose processes have the kernel's tables beside their own."""

ISOLATED_ARM64 = Arm64Variant(4, isolated=True)
VARIANTS = [*X86, *RISCV, *ARM64, ISOLATED_ARM64]


def _only(variants: Sequence[AnyVariant]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("linux", variants, indirect=True, scope="session", ids=str)


on_x86, on_riscv, on_arm64 = _only(X86), _only(RISCV), _only(ARM64)

"""What RISC-V has otherwise among the rules about spaces."""

from __future__ import annotations

import numpy as np

from harness.inspect.lint import Severity, lint
from harness.inspect.riscv import memory_type
from harness.inspect.snapshot import Snapshot
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, R, V, W

NC = 1 << 61
FRAME = 0x8000_0000 >> 2


def test_memory_that_is_cached_at_one_address_alone_is_a_note() -> None:
    words = np.zeros(3 * 512, np.uint64)
    words[0], words[512] = 0x1000 >> 2 | V, 0x2000 >> 2 | V
    words[1024 : 1024 + 2] = FRAME | V | R | W | A | D, FRAME | V | R | W | A | D | NC
    cpu = Cpu.in_mode(Mode.SV39, 0, pbmte=True)
    snapshot = Snapshot("test", cpu, BufferMemory(words.view(np.uint8)), None)
    broken, _ = lint(snapshot, memory_type.types(None), (), 10)
    [mixed] = [one for one in broken if one.rule.name == "mixed-types"]
    assert (mixed.rule.severity, mixed.rule.section) == (Severity.NOTE, "Svpbmt")
    [finding] = mixed.findings
    assert finding.detail == "NC at 0x1000 and PMA at 0x0"

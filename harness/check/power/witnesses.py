"""The questions of POWER's cases, asked again: of QEMU's TCG, which alone runs it."""

from __future__ import annotations

from harness.check.power.replay import MatrixCase, replay, saved
from harness.check.replay import LayoutCase, OneEngine
from harness.machine.power.engines import ENGINES
from harness.machine.power.guest import Guest

__all__ = ["ask_every", "case_of", "on", "replayed", "saved", "this_host"]

[_engine] = ENGINES.values()
_TCG: OneEngine[LayoutCase | MatrixCase] = OneEngine(
    "POWER", _engine, lambda program: Guest(program=program), replay
)
case_of = LayoutCase.of
on, replayed = _TCG.on, _TCG.replayed
this_host, ask_every = _TCG.this_host, _TCG.ask_every

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.machine import engines as module
from harness.machine.engines import engines, why_absent
from harness.machine.errors import Misuse


def test_an_engine_that_does_not_exist_is_refused_with_the_names_of_those_that_do() -> None:
    with pytest.raises(Misuse, match=r"no engine 'xen': choose one of tcg, kvm"):
        why_absent("xen")


def test_without_qemu_every_engine_is_absent_with_the_reason() -> None:
    reasons = engines(qemu="no-such-qemu")
    assert set(reasons) == {"tcg", "kvm"}
    assert all(reason for reason in reasons.values())
    assert "no-such-qemu is not installed" in str(reasons["tcg"])


def test_without_its_device_kvm_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "KVM_DEVICE", tmp_path / "kvm")
    assert "load the kvm module" in str(why_absent("kvm"))


def test_a_device_of_others_makes_kvm_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(module, "KVM_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "may not be opened" in str(why_absent("kvm"))


def test_a_kvm_that_opens_and_does_not_work_is_absent_with_what_qemu_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(module, "KVM_DEVICE", tmp_path / "kvm")
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\necho 'qemu: ioctl(KVM_CREATE_VM) failed: 16' >&2\nexit 1\n")
    qemu.chmod(0o755)
    reason = why_absent("kvm", qemu=str(qemu))
    assert reason is not None
    assert "exit code 1" in reason
    assert "KVM_CREATE_VM" in reason


@pytest.mark.hw
def test_tcg_is_present() -> None:
    assert why_absent("tcg") is None

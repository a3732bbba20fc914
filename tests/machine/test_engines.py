from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.machine.errors import Misuse
from harness.machine.ram import MIB
from harness.machine.x86 import engines, registry
from harness.machine.x86.engines import executor, kvm_module, present, reads_as_amd, why_absent
from harness.machine.x86.guest import Guest, MachineInfo
from harness.machine.x86.qemu import TCG
from harness.machine.x86.registry import ENGINES


def test_an_engine_that_does_not_exist_is_refused_with_the_names_of_those_that_do() -> None:
    with pytest.raises(Misuse, match=r"no engine 'xen': choose one of tcg, kvm, bochs"):
        why_absent("xen")


@pytest.mark.parametrize("engine", ENGINES)
def test_without_its_emulator_an_engine_is_absent_with_the_reason(engine: str) -> None:
    reason = why_absent(engine, program="no-such-emulator")
    maker = ENGINES[engine].maker
    assert f"{maker} is not installed, or not in PATH as no-such-emulator" in str(reason)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A device for KVM, which is not there."""
    kvm = replace(ENGINES["kvm"], device=tmp_path / "kvm")
    monkeypatch.setattr(registry, "ENGINES", {"kvm": kvm})
    return tmp_path / "kvm"


def test_without_its_device_kvm_is_absent(device: Path) -> None:
    assert "load the kvm module" in str(why_absent("kvm"))


def test_a_device_of_others_makes_kvm_absent(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != device)
    assert "may not be opened" in str(why_absent("kvm"))


def test_a_kvm_that_opens_and_does_not_work_is_absent_with_what_qemu_said(
    device: Path, tmp_path: Path
) -> None:
    device.touch()
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\necho 'qemu: ioctl(KVM_CREATE_VM) failed: 16' >&2\nexit 1\n")
    qemu.chmod(0o755)
    reason = why_absent("kvm", program=str(qemu))
    assert reason is not None
    assert "exit code 1" in reason
    assert "KVM_CREATE_VM" in reason


@pytest.mark.parametrize(
    ("vendor", "expected"),
    [(b"AuthenticAMD", True), (b"HygonGenuine", True), (b"GenuineIntel", False)],
)
def test_a_processor_reads_entries_as_its_vendor_s(vendor: bytes, expected: bool) -> None:
    ebx, edx, ecx = (int.from_bytes(vendor[at : at + 4], "little") for at in (0, 4, 8))
    assert reads_as_amd(MachineInfo({0: (0, ebx, ecx, edx)})) is expected


@pytest.mark.hw
def test_tcg_is_present() -> None:
    assert why_absent("tcg") is None


@pytest.mark.hw
def test_an_engine_is_brought_up_once_for_each_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[str]()

    def counted(*given: Any, **options: Any) -> Guest:
        started.append(options["program"])
        return Guest(*given, **options)

    monkeypatch.setattr(engines, "Guest", counted)
    qemu = tmp_path / "qemu"
    qemu.write_text(f'#!/bin/sh\nexec {TCG.program} "$@"\n')
    qemu.chmod(0o755)
    first = present("tcg", str(qemu))
    assert (why_absent("tcg", program=str(qemu)), present("tcg", str(qemu))) == (None, first)
    assert started == [str(qemu)]
    qemu.write_text("#!/bin/sh\nexit 1\n")
    assert "exit code 1" in str(why_absent("tcg", program=str(qemu)))
    assert "exit code 1" in str(why_absent("tcg", program=str(qemu)))
    assert started == [str(qemu)] * 3


@pytest.mark.parametrize(
    ("held", "module"),
    [
        (("kvm", "kvm_intel"), "kvm_intel"),
        (("kvm", "kvm_amd"), "kvm_amd"),
        (("kvm", "kvm_pvm"), "kvm_pvm"),
        (("kvm", "kvm_intel", "kvm_pvm"), None),
        (("kvm", "kvm_intel", "kvm_amd"), None),
        (("kvm",), None),
    ],
)
def test_the_module_behind_kvm_is_named_if_there_is_one_only(
    held: tuple[str, ...], module: str | None, tmp_path: Path
) -> None:
    for name in held:
        (tmp_path / name).mkdir()
    assert kvm_module(tmp_path) == module


@pytest.mark.hw
def test_tcg_executes_in_the_version_of_qemu() -> None:
    with Guest("tcg", ram_bytes=64 * MIB) as guest:
        assert executor(guest) == ("tcg", guest.version)


@pytest.mark.hw
@pytest.mark.parametrize(
    ("module", "name"), [("kvm_pvm", "kvm_pvm"), ("kvm_amd", "kvm_amd"), (None, "kvm")]
)
def test_kvm_executes_by_its_module_in_the_version_of_the_kernel(
    module: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent("kvm"):
        pytest.skip(reason)
    monkeypatch.setattr("harness.machine.x86.engines.kvm_module", lambda: module)
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result(("Linux", "host", "6.18.44-7-generic", "", "x86_64"))
    )
    with Guest("kvm", ram_bytes=64 * MIB) as guest:
        assert executor(guest) == (name, (6, 18, 44))

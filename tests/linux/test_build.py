"""The image is made once, and where it cannot be made a sentence says why."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from images.linux.build import SOURCE, Image, NoKernel, build

DEPENDS = "echo '  Depends: linux-image-6.1.0-1-amd64'"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all of PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


def stand_in(directory: Path, name: str, does: str) -> None:
    program = directory / name
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)


def initramfs_of(image: Image) -> Path:
    assert image.initramfs is not None
    return image.initramfs


def test_a_machine_that_is_no_debian_is_told_so(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(NoKernel, match="apt-get is not installed, and the kernel comes from a D"):
        build(tmp_path / "image")


def test_a_debian_without_that_kernel_is_told_so(programs: Path, tmp_path: Path) -> None:
    for name in ("apt-get", "apt-cache", "dpkg-deb", "sudo"):
        stand_in(programs, name, "exit 0")
    with pytest.raises(NoKernel, match="apt knows no linux-image-amd64"):
        build(tmp_path / "image")


def test_what_apt_says_is_passed_on(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "apt-cache", DEPENDS)
    stand_in(programs, "apt-get", "echo 'E: no network' >&2; exit 100")
    stand_in(programs, "dpkg-deb", "exit 0")
    with pytest.raises(NoKernel, match="failed and said: E: no network"):
        build(tmp_path / "image")


@pytest.mark.parametrize(
    ("content", "said"), [("", "cannot be read"), ("a program", "has no config and no vmlinuz")]
)
def test_a_package_without_a_kernel_is_refused(
    programs: Path, tmp_path: Path, content: str, said: str
) -> None:
    package = tmp_path / "package.tar"
    if content:
        (tmp_path / "program").write_text(content)
        command = ("/bin/tar", "-cf", str(package), "-C", str(tmp_path), "program")
        subprocess.run(command, check=True)
    else:
        package.write_bytes(b"no archive")
    stand_in(programs, "apt-cache", DEPENDS)
    stand_in(programs, "apt-get", ": > kernel.deb")
    stand_in(programs, "dpkg-deb", f"exec /bin/cat {package}")
    with pytest.raises(NoKernel, match=said):
        build(tmp_path / "image")
    assert [path.name for path in (tmp_path / "image").iterdir()] == ["lock"]


@pytest.mark.parametrize("kernel", [b"short", bytes(0x202) + b"HdrS" + bytes(600)])
def test_a_kernel_that_is_not_packed_by_xz_is_booted_as_it_is(
    tmp_path: Path, kernel: bytes
) -> None:
    (tmp_path / "vmlinuz").write_bytes(kernel)
    assert build(tmp_path).kernel.read_bytes() == kernel


@pytest.mark.hw
def test_an_image_that_is_up_to_date_is_left_alone(linux_image: Image, programs: Path) -> None:
    before = initramfs_of(linux_image).stat().st_mtime_ns
    assert build(linux_image.kernel.parent) == linux_image
    assert initramfs_of(linux_image).stat().st_mtime_ns == before


@pytest.mark.hw
def test_the_archive_holds_the_program_alone(linux_image: Image) -> None:
    content = initramfs_of(linux_image).read_bytes()
    program = initramfs_of(linux_image).with_name("init").read_bytes()
    assert content.count(b"070701") == 2
    assert content[content.index(b"\x7fELF") :].startswith(program)
    assert SOURCE.exists()

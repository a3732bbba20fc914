"""Makes a Linux that boots in QEMU: Debian's kernel as it is, and `init.c` as its only program.

`python -m images.linux.build`, which `make image-linux` runs, leaves in build/linux

    vmlinuz    the kernel of the package that linux-image-amd64 depends on
    config     what that kernel was configured with
    entry      entry.S, which runs in place of the program that unpacks the kernel
    kernel     the kernel unpacked, behind entry: it boots in half the time
    init       init.c, linked to no library
    initramfs  an archive that holds init alone

and does nothing where all is there and up to date.  `make clean` has the next run fetch the
kernel again.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGE: Final = "linux-image-amd64"
"""Depends on the package that holds the newest kernel, and holds nothing itself."""

PAE_PACKAGE: Final = "linux-image-686-pae:i386"
"""The same of the kernel for 32-bit processors, which pages by PAE."""

RISCV_PACKAGE: Final = "linux-image-riscv64:riscv64"
"""The same of the kernel for RISC-V, of which Debian 13 is the first release."""

ARM64_PACKAGE: Final = "linux-image-arm64:arm64"
"""The same of the kernel for arm64, of which Debian 13's is the first with LPA2."""

SUITE: Final = "trixie"
"""Debian 13, whose kernels these two are."""

RAM_DISK: Final = "brd.ko"
"""The module by which a disk is in memory, for the swap of init.c."""

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""By which apt checks another release than the machine's own."""

SOURCE: Final = Path(__file__).with_name("init.c")
STRESS: Final = SOURCE.with_name("stress.c")
HEADER: Final = SOURCE.with_name("program.h")
ENTRY: Final = SOURCE.with_name("entry.S")
PLACE: Final = Path(__file__).parents[2] / "build" / "linux"

_OPTIONS: Final = (
    *("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"),
    *("-ffreestanding", "-fno-stack-protector", "-fno-pie"),
    *("-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns"),
    *("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
)
_COMPILE: Final = ("gcc", "-fcf-protection=none", *_OPTIONS)

# Nothing sets the register gp, which the linker's shorter forms of code would use.
_COMPILE_RISCV: Final = ("riscv64-linux-gnu-gcc", "-mno-relax", "-Wl,--no-relax", *_OPTIONS)
_COMPILE_ARM64: Final = ("aarch64-linux-gnu-gcc", *_OPTIONS)

LOADED: Final = 0x10_0000
"""Where the boot loader puts what follows the setup of a kernel's image, and jumps to."""

_LOADABLE: Final = 1
"""PT_LOAD of the ELF specification."""


class CanNotBuild(Exception):  # noqa: N818 (an ending, not a mistake of this program)
    """The image cannot be made here; the sentence says why, and what to do."""


class NoKernel(CanNotBuild):
    """This machine has no Debian to fetch a kernel from."""


@dataclass(frozen=True)
class Image:
    """The files that QEMU boots; without an initramfs the kernel panics when it has set up all."""

    kernel: Path
    initramfs: Path | None


def build(place: Path = PLACE) -> Image:
    """The image in `place`, made as far as it is missing or older than its source.

    Several processes may ask at once: one builds, the others wait for it.  Raises `CanNotBuild`.
    """
    place.mkdir(parents=True, exist_ok=True)
    packed, kernel, initramfs = place / "vmlinuz", place / "kernel", place / "initramfs"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not packed.exists():
            fetch_kernel(place, PACKAGE)
        if not _newer(kernel, packed, ENTRY, Path(__file__)):
            _write(kernel, ready_to_run(packed.read_bytes(), place / "entry"))
        _compile(SOURCE, place / "init", initramfs)
    return Image(kernel, initramfs)


def build_stress(place: Path = PLACE, riscv: bool = False) -> Image:
    """The kernel, and `stress.c` as its only program.  Raises `CanNotBuild`."""
    if riscv:
        place = place / "riscv"
    kernel, initramfs = (build_riscv if riscv else build)(place).kernel, place / "stress.initramfs"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _compile(STRESS, place / "stress", initramfs, _COMPILE_RISCV if riscv else _COMPILE)
    return Image(kernel, initramfs)


def _compile(
    source: Path,
    program: Path,
    initramfs: Path,
    compiler: Sequence[str] = _COMPILE,
    others: Sequence[Path] = (),
) -> None:
    """An archive with a program as its init, and other files beside it, unless it is there and up
    to date."""
    if not _newer(initramfs, source, HEADER, Path(__file__), *others):
        _run((*compiler, "-o", str(program), str(source)))
        files = {"init": program, **{other.name: other for other in others}}
        _write(initramfs, archive({name: path.read_bytes() for name, path in files.items()}))


def ready_to_run(image: bytes, entry: Path) -> bytes:
    """A kernel's image that need not unpack itself: its setup, `entry` and the kernel; the image
    as it is where it is not packed by xz.

    Source: Linux, Documentation/arch/x86/boot.rst.
    """
    setup = bytearray(image[: (image[0x1F1] + 1) * 512] if image[0x202:0x206] == b"HdrS" else b"")
    if not (kernel := _unpacked(image, len(setup))):
        return image
    first, *more = _segments(kernel)
    place = ("-Wl,--oformat=binary", f"-Wl,-Ttext={LOADED:#x}", f"-Wl,--defsym=kernel={first[0]}")
    _run((*_COMPILE, *place, "-o", str(entry), str(ENTRY)))
    memory = bytearray()
    for address, content in ((LOADED, entry.read_bytes()), first, *more):
        memory += bytes(address - LOADED - len(memory)) + content
    setup[0x211] |= 1 << 1  # loadflags, KASLR_FLAG, which the program that unpacks would set
    return bytes(setup + memory)


def _unpacked(image: bytes, setup: int) -> bytes:
    """The ELF file in a kernel's image, whose setup is so long; nothing if it is not packed by
    xz."""
    if not setup:
        return b""
    (offset, size) = struct.unpack_from("<II", image, 0x248)
    try:
        return lzma.LZMADecompressor().decompress(image[setup + offset :][:size])
    except lzma.LZMAError:
        return b""


def _segments(kernel: bytes) -> Iterator[tuple[int, bytes]]:
    """What the kernel's ELF file has loaded, at physical addresses in order; it begins at the
    first."""
    (headers,) = struct.unpack_from("<Q", kernel, 0x20)
    (size, count) = struct.unpack_from("<HH", kernel, 0x36)
    for number in range(count):
        kind, _, offset, _, address, length = struct.unpack_from(
            "<IIQQQQ", kernel, headers + number * size
        )
        if kind == _LOADABLE:
            yield address, kernel[offset : offset + length]


def build_pae(place: Path = PLACE / "pae") -> Image:
    """Debian's kernel for 32-bit processors alone, in `place`.  Raises `NoKernel`."""
    return Image(_foreign_kernel(place, PAE_PACKAGE, "i386"), None)


def build_riscv(place: Path = PLACE / "riscv") -> Image:
    """The image for RISC-V of 64 bits, as `build` makes that for x86-64: Debian has this kernel
    unpacked.  Raises `CanNotBuild`."""
    return _build_foreign(place, RISCV_PACKAGE, "riscv64", _COMPILE_RISCV)


def build_arm64(place: Path = PLACE / "arm64") -> Image:
    """The same for arm64, with a disk for swap.  Raises `CanNotBuild`."""
    return _build_foreign(place, ARM64_PACKAGE, "arm64", _COMPILE_ARM64, (RAM_DISK,))


def _build_foreign(
    place: Path,
    package: str,
    architecture: str,
    compiler: Sequence[str],
    modules: Sequence[str] = (),
) -> Image:
    kernel = _foreign_kernel(place, package, architecture, SUITE, modules)
    initramfs = place / "initramfs"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _compile(SOURCE, place / "init", initramfs, compiler, [place / name for name in modules])
    return Image(kernel, initramfs)


def _foreign_kernel(
    place: Path, package: str, architecture: str, suite: str = "", modules: Sequence[str] = ()
) -> Path:
    """The kernel of another architecture in `place`, from a release of Debian's where the machine's
    own may not have it; and modules of it.  Raises `NoKernel`."""
    place.mkdir(parents=True, exist_ok=True)
    kernel = place / "vmlinuz"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(path.exists() for path in (kernel, *(place / name for name in modules))):
            # Lists of packages of another architecture, apart from those of this machine.
            for part in ("lists/partial", "cache/archives/partial"):
                (place / "apt" / part).mkdir(parents=True, exist_ok=True)
            apt = ["-o", "APT::Architectures::=amd64", "-o", f"APT::Architectures::={architecture}"]
            apt += ["-o", f"Dir::State::Lists={place}/apt/lists", "-o", "APT::Sandbox::User="]
            apt += ["-o", f"Dir::Cache={place}/apt/cache", "-o", "Acquire::Languages=none"]
            if suite:
                apt += _release(place / "apt", suite, architecture)
            fetch_kernel(place, package, apt, modules)
            shutil.rmtree(place / "apt")
    return kernel


def _release(place: Path, suite: str, architecture: str) -> list[str]:
    """The options by which apt knows a release of Debian's alone, at the mirror of the machine's
    own."""
    if not KEYRING.exists():
        raise NoKernel(f"there is no {KEYRING}: install debian-archive-keyring")
    own = platform.freedesktop_os_release().get("VERSION_CODENAME")
    targets = _answer("apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)")
    mirrors = (line.split() for line in targets.splitlines())
    mirror = next((site for name, site in mirrors if name in (own, "stable", "oldstable")), None)
    if mirror is None:
        raise NoKernel(f"apt knows no mirror of Debian's {own}: name one in its sources")
    sources = place / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING} arch={architecture}] {mirror} {suite} main\n")
    return ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null"]


def fetch_kernel(
    place: Path, package: str, apt: Sequence[str] = (), modules: Sequence[str] = ()
) -> None:
    """Leave `vmlinuz` and `config` of the newest kernel that a package of Debian's depends on in
    `place`, one that is not packed being called vmlinux there, and modules by their files' names.

    The package is fetched and checked by apt, and only read: nothing is installed; `apt` are
    options for it, with lists of its own.  Raises `NoKernel`.
    """
    for program, source in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if shutil.which(program) is None:
            raise NoKernel(
                f"{program} is not installed, and the kernel comes from a Debian package: "
                f"install {source}, or put a kernel's vmlinuz into {place}"
            )
    name = _kernel_package(package, apt)
    print(f"fetching {name}", flush=True)
    with tempfile.TemporaryDirectory(dir=place) as directory:
        try:
            _run(("apt-get", *apt, "-qq", "download", name), cwd=directory)
        except CanNotBuild as reason:
            raise NoKernel(str(reason)) from None
        (fetched,) = Path(directory).glob("*.deb")
        _extract(fetched, place, modules)


def _kernel_package(package: str, apt: Sequence[str]) -> str:
    """The name of the package that holds the newest kernel."""
    for renewed in (False, True):
        if renewed:
            _renew_lists(package, apt)
        answer = _answer("apt-cache", *apt, "depends", package)
        if found := re.search(r"Depends: (linux-image-\d\S+)", answer):
            return found[1]
    raise NoKernel(
        f"apt knows no {package}, whose kernel is booted: this is made for Debian on x86-64; "
        f"elsewhere put a kernel's vmlinuz into {PLACE}"
    )


def _renew_lists(package: str, apt: Sequence[str]) -> None:
    """A fresh machine has no lists of packages; anyone may fetch lists of their own."""
    update = ("apt-get", *apt, "-qq", "update")
    if os.geteuid() == 0 or apt:
        command: Sequence[str] = update
    elif shutil.which("sudo"):
        command = ("sudo", "-n", *update)
    else:
        raise NoKernel(f"apt knows no {package} yet: run 'apt-get update' as root")
    try:
        _run(command)
    except CanNotBuild as reason:
        raise NoKernel(f"apt knows no {package} yet, and {reason}") from None


def _extract(package: Path, place: Path, modules: Sequence[str]) -> None:
    """The two files of /boot, which comes first: what is behind the last that is wanted is not even
    unpacked."""
    wanted = {"vmlinuz", "config", *modules}
    with subprocess.Popen(
        ("dpkg-deb", "--fsys-tarfile", str(package)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as unpack:
        assert unpack.stdout is not None
        try:
            with tarfile.open(fileobj=unpack.stdout, mode="r|") as files:
                for member in files:
                    name = _called(member.name)
                    if name in wanted and (content := files.extractfile(member)):
                        octets = content.read()
                        wanted.remove(name)
                        packed = member.name.endswith(".xz")
                        _write(place / name, lzma.decompress(octets) if packed else octets)
                    if not wanted:
                        break
        except (tarfile.TarError, lzma.LZMAError) as error:
            raise NoKernel(f"{package.name} cannot be read: {error}") from error
        finally:
            unpack.kill()
    if wanted:
        raise NoKernel(f"{package.name} has no {' and no '.join(sorted(wanted))}")


def _called(path: str) -> str:
    """What a file of a kernel's package is called here: vmlinuz, config, or a module's own name."""
    if found := re.fullmatch(r"\./boot/(vmlinu|config)[xz]?-.*", path):
        return "vmlinuz" if found[1] == "vmlinu" else "config"
    return path.rpartition("/")[2].removesuffix(".xz") if ".ko" in path else ""


def archive(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive that holds executable files, by their names.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst in Linux, "newc".
    """
    held = (_entry(name, 0o100755, content) for name, content in files.items())
    return b"".join(held) + _entry("TRAILER!!!", 0, b"")


def _entry(name: str, mode: int, content: bytes) -> bytes:
    path = name.encode() + b"\0"
    inode, owner, group, links, time, device, check = 1, 0, 0, 1, 0, (0, 0, 0, 0), 0
    fields = (inode, mode, owner, group, links, time, len(content), *device, len(path), check)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + path) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)


def _newer(product: Path, *sources: Path) -> bool:
    """Whether a product is there and as new as all of its sources."""
    return product.exists() and product.stat().st_mtime >= max(s.stat().st_mtime for s in sources)


def _write(path: Path, content: bytes) -> None:
    """In whole or not at all: an interrupted run leaves nothing that looks finished."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.rename(path)


def _answer(*command: str) -> str:
    """What a program prints, whether or not it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _run(command: Sequence[str], cwd: str | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CanNotBuild(f"{command[0]} is not installed: run .ci/setup") from None
    if done.returncode:
        lines = done.stderr.splitlines() or ["nothing"]
        first = next((line for line in lines if re.search("error:|^E:", line)), lines[-1])
        raise CanNotBuild(f"'{' '.join(command)}' failed and said: {first}")


if __name__ == "__main__":
    try:
        built = build()
    except CanNotBuild as reason:
        sys.exit(f"{SOURCE.parent.name}: {reason}.")
    print(f"{built.kernel.parent} holds the kernel and its initramfs")

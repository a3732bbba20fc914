"""What every package holds besides the modules: the guest's stub, what Bochs needs to run it, and
the plugin for QEMU, so that installing one needs no compiler, and in a wheel the layouts."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = {
    "x86": ("stub.elf", "bochs-rom.bin", "bochs-shim.so"),
    "plugin": ("flushes-x86.so", "flushes-riscv.so"),
    "riscv": ("stub-riscv64.elf", "stub-riscv32.elf"),
    "arm64": ("stub-arm64.elf",),
    "power": ("stub-power.elf",),
    "s390": ("stub-s390.elf",),
}
"""What the Makefile of each folder makes."""

OPTIONAL = ("riscv", "arm64", "power", "s390")
"""The folders without which a package does: their compilers are not those of this machine."""


class StubBuildHook(BuildHookInterface[Any]):
    """Runs `make -C` for each folder of which a product is missing or older than a source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Leave an up-to-date stub in the tree, or end the build with a sentence."""
        if self.target_name == "wheel":
            # Of images/ the layouts alone: the recipes of guests there are for a checkout.
            images = Path(self.root, "images")
            for layout in (*images.glob("*.toml"), *images.glob("*/*.toml")):
                place = f"harness/images/{layout.relative_to(images)}"
                build_data["force_include"][str(layout)] = place
        for folder, names in BUILT.items():
            build_data["artifacts"] += [f"harness/machine/{name}" for name in names]
            self._build(Path(self.root, "guest", folder), names, folder in OPTIONAL)

    def _build(self, sources: Path, names: Sequence[str], optional: bool) -> None:
        built = [Path(self.root, "harness", "machine", name) for name in names]
        newest_source = max(newest(sources), newest(sources.parent / "common"))
        if all(one.exists() and one.stat().st_mtime >= newest_source for one in built):
            return
        for program in ("make", "gcc"):
            if shutil.which(program) is None:
                self.app.abort(
                    f"{built[0]} has to be built from {sources}, and {program} is not in PATH: "
                    "install gcc and make, or install a wheel, which contains the stub."
                )
        if optional and (reason := lacks(sources)):
            self.app.display_warning(reason)  # what is there is packed all the same
            return
        if subprocess.run(["make", "-C", str(sources)], check=False).returncode != 0:
            self.app.abort(f"{built[0]} could not be built: `make -C {sources}` says why.")


def lacks(sources: Path) -> str:
    """Why the machine's compiler cannot build a folder, as a sentence; empty if it can."""
    ask = ("make", "-s", "--no-print-directory", "-C", str(sources), "lacks")
    return subprocess.run(ask, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def newest(directory: Path) -> float:
    """The time of the last change to a file under `directory`, in seconds since the epoch."""
    return max(path.stat().st_mtime for path in directory.rglob("*") if path.is_file())

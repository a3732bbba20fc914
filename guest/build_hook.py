"""What every package holds besides the modules: the guest's stub and what Bochs needs to run it, so
that installing one needs no compiler, and in a wheel the layouts."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = ("stub.elf", "bochs-rom.bin", "bochs-shim.so")
"""What the Makefile makes."""


class StubBuildHook(BuildHookInterface[Any]):
    """Runs `make -C guest/x86` when what that makes is missing or older than one of its sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Leave an up-to-date stub in the tree, or end the build with a sentence."""
        if self.target_name == "wheel":
            # Of images/ the layouts alone: the recipes of guests there are for a checkout.
            for layout in Path(self.root, "images").glob("*.toml"):
                build_data["force_include"][str(layout)] = f"harness/images/{layout.name}"
        build_data["artifacts"] += [f"harness/machine/{name}" for name in BUILT]
        sources = Path(self.root, "guest", "x86")
        built = [Path(self.root, "harness", "machine", name) for name in BUILT]
        if all(one.exists() and one.stat().st_mtime >= newest(sources) for one in built):
            return
        stub = built[0]
        for program in ("make", "gcc"):
            if shutil.which(program) is None:
                self.app.abort(
                    f"{stub} has to be built from {sources}, and {program} is not in PATH: "
                    "install gcc and make, or install a wheel, which contains the stub."
                )
        if subprocess.run(["make", "-C", str(sources)], check=False).returncode != 0:
            self.app.abort(f"{stub} could not be built: `make -C {sources}` says why.")


def newest(directory: Path) -> float:
    """The time of the last change to a file under `directory`, in seconds since the epoch."""
    return max(path.stat().st_mtime for path in directory.rglob("*") if path.is_file())

"""What x86's flushes are called in reports."""

from __future__ import annotations

from typing import Final

BY: Final = {
    "invlpg": "INVLPG",
    "mov_cr3": "MOV CR3",
    "control": "a change of CR0 or CR4",
}
"""By their names in the plugin's report."""

SEEN: Final = {"invlpg": "INVLPG", "mov_cr3": "MOV CR3"}
"""Those that are counted."""

ROOT: Final = "CR3"
"""The register that has the root."""

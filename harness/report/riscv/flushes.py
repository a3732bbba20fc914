"""What RISC-V's fences are called in reports."""

from __future__ import annotations

from typing import Final

BY: Final = {
    "fence_all": "SFENCE.VMA for all",
    "fence_space": "SFENCE.VMA for the ASID",
    "fence_page": "SFENCE.VMA for the address",
}
"""By their names in the plugin's report."""

SEEN: Final = {**BY, "satp": "writes of satp"}
"""Those that are counted."""

ROOT: Final = "satp"
"""The register that has the root."""

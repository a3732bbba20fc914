"""What Linux makes of page tables: its use of entries, and its old names for their levels."""

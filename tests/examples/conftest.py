"""What other projects would write is run as they would run it, by `test_examples.py`."""

collect_ignore = ["c", "riscv"]

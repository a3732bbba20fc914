"""The benchmark: `python -m tests.bench [NAME...]` measures, prints and writes build/bench.json."""

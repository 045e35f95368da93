"""Benchmarks. `python -m bench.NAME` prints a table with its conditions; `--write` puts it into RESULTS.md."""

"""The benchmark: docs/performance.md says what is measured and how to read it."""

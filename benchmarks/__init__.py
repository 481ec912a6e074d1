"""The engine measured beside other libraries that differentiate through training: docs/benchmarks.md."""

"""Benchmarks: published tables beside own measurements, the jobs that measure them, and reports."""

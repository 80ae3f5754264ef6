"""Measuring: metrics with a stated policy for empty masks, and real cases as lists of objects."""

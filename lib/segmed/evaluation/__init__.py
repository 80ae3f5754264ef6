"""Evaluation: metrics with a policy for empty masks, simulated annotators, and real cases as objects."""

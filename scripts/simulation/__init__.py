"""The parts of scripts/simulate_annotation.py."""

"""Data that the tests of training share."""

from __future__ import annotations

from training_fixtures import discs, held_out, one_thread

__all__ = ["discs", "held_out", "one_thread"]

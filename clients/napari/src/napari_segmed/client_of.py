"""The client of SegMed: that of the package `segmed`, or the package `segmed-client` alone."""

from __future__ import annotations

try:
    from segmed import client
except ImportError:  # an environment without the models, beside a server elsewhere
    import segmed_client as client  # type: ignore[import-not-found, no-redef]

__all__ = ["client"]

"""The decoder of this server: files that came over the network, or that nobody has read yet, are not read in
it."""

from __future__ import annotations

from functools import cache

from segmed.imaging.decoding.decoder import Decoder


@cache
def decoder() -> Decoder:
    """Its processes start with the first file, or when `Workers.warm` is called."""
    return Decoder()

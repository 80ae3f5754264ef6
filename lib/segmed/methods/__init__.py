"""The methods of the field, each a `Segmenter` in a file of its own; listed here once."""

from segmed.methods import classical, medsam, sam, segmed
from segmed.methods.segmenter import Method

METHODS: dict[str, Method] = {m.METHOD.name: m.METHOD for m in (segmed, classical, medsam, sam)}

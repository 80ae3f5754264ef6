"""The methods of the field, each a `Segmenter` in a file of its own; listed here once."""

from segmed.methods import adapter, classical, decoder_tuning, featup, gafl, imedsam, lora, sam, segmed_tuning
from segmed.methods.segmenter import Method

METHODS: dict[str, Method] = {
    m.METHOD.name: m.METHOD
    for m in (segmed_tuning, classical, decoder_tuning, sam, gafl, featup, imedsam, lora, adapter)
}

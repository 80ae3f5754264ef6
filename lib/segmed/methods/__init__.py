"""The methods of the field, each a `Segmenter` in a file of its own; listed here once."""

from segmed.methods import (
    adapter,
    classical,
    decoder_tuning,
    detector,
    featup,
    gafl,
    imedsam,
    lora,
    sam,
    sam2,
    unet_family,
)
from segmed.methods.segmed import tuning as segmed_tuning
from segmed.methods.segmenter import Method

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        *(one.METHOD for one in (segmed_tuning, classical, decoder_tuning, sam, gafl, featup, imedsam, lora, adapter)),
        detector.METHOD,
        *unet_family.METHODS,
        sam2.METHOD,
    )
}

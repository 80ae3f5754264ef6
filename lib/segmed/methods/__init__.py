"""The methods of the field, listed here once; each is a `Segmenter` in a file of its own, imported when it is
used."""

from segmed.methods.base.method import Method
from segmed.sam.sources import DEFAULT_MODEL, EMBEDDED

_NETWORKS = {
    "unet": "U-Net",
    "unetpp": "U-Net++",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "pan": "PAN",
}

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            "segmed",
            "SegMed's own model: a box, clicks or scribbles",
            "segmed.methods.segmed.tuning:PARTS",
            ready=True,
            own_format=True,
            weights=DEFAULT_MODEL,
        ),
        Method(
            "classical",
            "No weights needed: box or clicks by grey values",
            "segmed.methods.classical:PARTS",
            ready=True,
            learns=False,
            needs_backbone=False,
        ),
        Method(
            "medsam",
            "MedSAM: a box, refined by clicks",
            "segmed.methods.sam.decoder_tuning:PARTS",
            ready=True,
            example="medsam-vit-base",
        ),
        Method(
            "sam",
            "Segment Anything: clicks or a box, on any SAM weights",
            "segmed.methods.sam.decoder_tuning:SAM_PARTS",
            ready=True,
        ),
        Method(
            "gafl",
            "SAM behind a learned filter of the image's spectrum: a box",
            "segmed.methods.gafl.gafl:PARTS",
        ),
        Method(
            "featup",
            "SAM with features upsampled along the image's edges: a box",
            "segmed.methods.featup.featup:PARTS",
        ),
        Method(
            "imedsam",
            "I-MedSAM: a box or clicks, masks at any resolution with their uncertainty",
            "segmed.methods.imedsam.imedsam:PARTS",
            gives_uncertainty=True,
        ),
        Method(
            "lora",
            "LoRA-SAM: all organs without a prompt, or one by a box or clicks",
            "segmed.methods.lora:PARTS",
            automatic=True,
        ),
        Method(
            "adapter",
            "SAM-Adapter: all organs without a prompt, or one by a box or clicks",
            "segmed.methods.adapter.adapter:PARTS",
            automatic=True,
        ),
        Method(
            "detector",
            "Detector and prompts: structures are found as boxes, then outlined",
            "segmed.methods.detector.detector:PARTS",
            weights=EMBEDDED,
            automatic=True,
            detects=True,
        ),
        *(
            Method(
                name,
                f"{title}: all structures without a prompt, or what is in a box",
                f"segmed.methods.unet_family:{name.upper()}",
                needs_backbone=False,
                automatic=True,
            )
            for name, title in _NETWORKS.items()
        ),
        Method(
            "sam2",
            "SAM2: clicks or a box, carried through volumes by its memory",
            "segmed.methods.sam.sam2:PARTS",
            ready=True,
            learns=False,
            own_format=True,
            example="sam2.1-hiera-tiny",
        ),
        Method(
            "medsam2",
            "MedSAM2: a box, carried through volumes by its memory",
            "segmed.methods.sam.sam2:MEDSAM2",
            ready=True,
            learns=False,
            own_format=True,
            example="medsam2",
        ),
    )
}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}. Choose from {', '.join(METHODS)}.")
    return METHODS[name]

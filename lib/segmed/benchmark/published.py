"""Published values, with all versions of a value if its sources contradict each other. Data only.

None of them is a target: splits, weights and definitions of metrics differ from ours or are not reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One number of a paper.

    Attributes:
        entry: Row of our table with which it is compared.
        metric: Metric as in `numbers.METRICS`; `dice:NAME` is that of a class.
        value: Value as printed, shares from 0 to 1.
        source: Table of the paper.
        spread: Standard deviation, or None if it is not reported.
        where: "" for the test set, `@128` for another resolution, `>NAME` for another dataset.
    """

    entry: str
    metric: str
    value: float
    source: str
    spread: float | None = None
    where: str = ""


def _columns(
    source: str, entries: Sequence[str], rows: Mapping[str, Sequence[float]], where: str = ""
) -> tuple[Published, ...]:
    """The values of a printed table with a metric per row and an entry per column."""
    return tuple(
        Published(entry, metric, value, source, where=where)
        for metric, values in rows.items()
        for entry, value in zip(entries, values, strict=True)
    )


_BASELINES = ("deeplabv3plus", "unet", "unetpp", "deeplabv3", "pan")
LGG_BASELINES = _columns(
    "Table I",
    _BASELINES,
    {
        "train loss": (1.6634, 1.6691, 1.6730, 1.6646, 1.6656),
        "validation loss": (1.6662, 1.6712, 1.6750, 1.6700, 1.6683),
        "iou": (0.8741, 0.8517, 0.8268, 0.7986, 0.7970),
    },
)

LGG_SAM = (
    *_columns(
        "Table II, reduced image size",
        ("sam", "featup"),
        {
            "loss": (0.0442, 0.0159),
            "iou": (0.8095, 0.8537),
            "accuracy": (0.9721, 0.9762),
            "precision": (0.5089, 0.5728),
            "recall": (0.2857, 0.4258),
            "f1": (0.2947, 0.4351),
            "dice": (0.2870, 0.3395),
        },
    ),
    *_columns(
        "Table III",
        ("sam", "gafl"),
        {
            "loss": (0.0052, 0.0062),
            "iou": (0.6757, 0.9245),
            "accuracy": (0.9919, 0.9698),
            "precision": (0.8609, 0.9468),
            "recall": (0.8344, 0.9289),
            "f1": (0.8348, 0.9176),
            "dice": (0.7786, 0.8124),
        },
    ),
    *_columns(
        "Table IV",
        ("sam", "featup", "gafl"),
        {
            "loss": (0.0052, 0.0159, 0.7004),
            "iou": (0.6757, 0.8537, 0.7004),
            "accuracy": (0.9919, 0.9762, 0.9926),
            "precision": (0.8609, 0.5728, 0.7704),
            "recall": (0.8344, 0.4258, 0.8901),
            "f1": (0.8348, 0.4351, 0.8043),
            "dice": (0.7786, 0.3395, 0.8045),
        },
    ),
)

_ORGANS = ("sam-oracle", "sam2-oracle", "adapter", "lora-1", "lora-4", "lora-8")
FLARE22 = (
    *_columns(
        "Tables 1, 2 and 4",
        _ORGANS,
        {
            "dice:background": (0.4678, 0.3357, 0.9973, 0.9944, 0.9961, 0.9953),
            "dice:liver": (0.5418, 0.4255, 0.7328, 0.6758, 0.7191, 0.7093),
            "dice:right kidney": (0.7789, 0.6290, 0.5536, 0.5260, 0.5224, 0.4828),
            "dice:spleen": (0.8002, 0.6360, 0.4130, 0.3901, 0.4406, 0.4417),
            "dice:pancreas": (0.2321, 0.0647, 0.4307, 0.3826, 0.4010, 0.3985),
            "dice:aorta": (0.7915, 0.5825, 0.7985, 0.7759, 0.7975, 0.7872),
            "dice:inferior vena cava": (0.4659, 0.2915, 0.6611, 0.5818, 0.6342, 0.6309),
            "dice:right adrenal gland": (0.0253, 0.0081, 0.1777, 0.1778, 0.1914, 0.1850),
            "dice:left adrenal gland": (0.1891, 0.0380, 0.1993, 0.1761, 0.1874, 0.1538),
            "dice:gallbladder": (0.4196, 0.1520, 0.2674, 0.2546, 0.2802, 0.2578),
            "dice:oesophagus": (0.2759, 0.0609, 0.3530, 0.3368, 0.3650, 0.3654),
            "dice:stomach": (0.4558, 0.2035, 0.6076, 0.6270, 0.6897, 0.6554),
            "dice:duodenum": (0.2937, 0.1385, 0.7392, 0.6792, 0.7519, 0.7192),
            "dice:left kidney": (0.8049, 0.6962, 0.9367, 0.9265, 0.9580, 0.9333),
            "dice_with_background": (0.4673, 0.3044, 0.5620, 0.5360, 0.5667, 0.5511),
        },
    ),
    *_columns(
        "Tables 1, 2 and 4, recomputed without background",
        _ORGANS,
        {"dice": (0.4673, 0.3020, 0.5285, 0.5008, 0.5337, 0.5169)},
    ),
    *_columns(
        "Table 3, ViT-B at 1024 px",
        _ORGANS[2:],
        {"parameters": (106.1, 95.3, 95.5, 95.6), "trainable": (10.8, 2.4, 2.5, 2.7)},
    ),
)

_THREE = ("sam-oracle", "sam2-oracle", "lora-4")
GID5 = _columns(
    "Table 5",
    _THREE,
    {
        "dice:background": (0.1059, 0.0975, 0.8047),
        "dice:built-up": (0.1742, 0.1385, 0.6646),
        "dice:water": (0.2771, 0.3197, 0.4524),
        "dice:forest": (0.8107, 0.8027, 0.3568),
        "dice:meadow": (0.8367, 0.8249, 0.3673),
        "dice:farmland": (0.2435, 0.2325, 0.6411),
        "dice_with_background": (0.4080, 0.4026, 0.5478),
    },
)
SIRST = _columns(
    "Table 6",
    _THREE,
    {
        "dice:background": (0.7614, 0.4407, 0.9999),
        "dice:target": (0.5203, 0.4379, 0.8874),
        "dice_with_background": (0.6409, 0.4393, 0.9437),
    },
)

LIVER_PHASES = (
    *(
        Published(f"{points} points, 1024 px", "dice", value, "one shown example, maximum over phases")
        for points, value in ((1, 0.4668), (5, 0.7923), (20, 0.8761))
    ),
    *(
        Published(f"10 points, {side} px", "dice", value, "one shown example, maximum over phases")
        for side, value in ((224, 0.8397), (512, 0.6576), (1024, 0.5449))
    ),
    *(
        Published(f"20 points, 224 px, ViT-{size}", "dice", value, "one shown example, maximum over phases")
        for size, value in (("B", 0.4035), ("L", 0.8920), ("H", 0.9246))
    ),
)

BRATS_DETECTORS = _columns(
    "table of detectors",
    ("yolov5su", "yolov5lu"),
    {
        "box_precision": (0.91669, 0.93441),
        "map50": (0.86116, 0.90303),
        "map50_95": (0.63171, 0.71470),
    },
)
BRATS_MEDSAM = _columns(
    "table of segmenters, boxes of YOLOv5l",
    ("chain-sam", "chain-medsam", "chain-tuned"),
    {"dice": (0.692, 0.723, 0.889)},
)

_IMEDSAM = "paper of I-MedSAM"
SESSILE = (
    Published("imedsam", "dice", 0.9149, _IMEDSAM, 0.0052),
    Published("imedsam", "hausdorff", 11.59, _IMEDSAM),
    Published("imedsam", "trainable", 1.6, _IMEDSAM),
    *_columns(_IMEDSAM, ("imedsam", "medsam"), {"dice": (0.9145, 0.8239), "hausdorff": (7.91, 8.04)}, "@128"),
    *_columns(
        _IMEDSAM, ("imedsam", "medsam"), {"dice": (0.9133, 0.8319), "hausdorff": (32.77, 51.82)}, "@896"
    ),
    *_columns(
        _IMEDSAM,
        ("imedsam", "medsam"),
        {"dice": (0.8883, 0.7459), "hausdorff": (19.76, 30.15)},
        ">cvc-clinicdb",
    ),
    Published("medsam", "dice", 0.8288, _IMEDSAM),
    Published("medsam", "hausdorff", 21.53, _IMEDSAM),
)
_ABLATIONS = {
    "without frequency adapter": (0.8883, 15.44),
    "phase": (0.9060, 12.67),
    "amplitude with 12.5 % refined": (0.9149, 11.59),
    "nothing refined": (0.8777, 16.15),
    "50 % refined": (0.9027, 13.88),
    "25 % refined": (0.8959, 14.12),
    "6.25 % refined": (0.9101, 12.99),
    "3.125 % refined": (0.9048, 14.53),
}
_PARTS = {  # Sessile, Sessile → CVC, 128 px, 896 px
    "LoRA only": (0.8361, 0.8257, 0.7273, 0.7646),
    "LoRA and frequency adapter": (0.8874, 0.8261, 0.7569, 0.7859),
    "LoRA and implicit decoder": (0.8883, 0.8340, 0.8816, 0.8843),
    "all parts": (0.9149, 0.8883, 0.9145, 0.9133),
}
SESSILE_ABLATION = (
    *(
        Published(entry, metric, value, _IMEDSAM)
        for entry, values in _ABLATIONS.items()
        for metric, value in zip(("dice", "hausdorff"), values, strict=True)
    ),
    *(
        Published(entry, "dice", value, _IMEDSAM, where=where)
        for entry, values in _PARTS.items()
        for where, value in zip(("", ">cvc-clinicdb", "@128", "@896"), values, strict=True)
    ),
)
BTCV = (
    Published("imedsam", "dice", 0.8991, _IMEDSAM, 0.0068),
    Published("imedsam", "hausdorff", 5.95, _IMEDSAM),
    Published("imedsam", "trainable", 3.5, _IMEDSAM),
    Published("medsam", "dice", 0.8585, _IMEDSAM),
    Published("medsam", "hausdorff", 10.62, _IMEDSAM),
    *_columns(
        _IMEDSAM, ("imedsam", "medsam"), {"dice": (0.8628, 0.7198), "hausdorff": (37.53, 52.14)}, ">amos"
    ),
)

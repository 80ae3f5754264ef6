"""SNOMED CT codes of segments, found by their names; users add their own in a JSON file.

The codes are those of the code dictionary of DICOM (PS3.16, context groups 7150 and 7151), which pydicom
includes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

_SCT: Any = codes.SCT  # by attribute, which the type checker cannot follow
_NCIT: Any = codes.NCIt
_CATEGORIES: Any = codes.cid7150
_FINDINGS: Any = codes.cid7159


@dataclass(frozen=True)
class SegmentCodes:
    """The codes of a segment.

    Attributes:
        type: Type, such as kidney or neoplasm.
        category: Category, such as anatomical structure.
        modifier: Modifier of the type, the side of the body.
        region: Anatomical region of a lesion.
    """

    type: Code
    category: Code = _CATEGORIES.AnatomicalStructure
    modifier: Code | None = None
    region: Code | None = None


UNKNOWN = SegmentCodes(_SCT.Tissue)

_LESION = _CATEGORIES.MorphologicallyAbnormalStructure
_ORGANS = {
    "adrenal": _SCT.AdrenalGland,
    "adrenal gland": _SCT.AdrenalGland,
    "aorta": _SCT.Aorta,
    "bladder": _SCT.Bladder,
    "brain": _SCT.Brain,
    "colon": _SCT.Colon,
    "duodenum": _SCT.Duodenum,
    "esophagus": _SCT.Esophagus,
    "gallbladder": _SCT.Gallbladder,
    "heart": _SCT.Heart,
    "hepatic vein": _SCT.HepaticVein,
    "hippocampus": _SCT.Hippocampus,
    "inferior vena cava": _SCT.InferiorVenaCava,
    "ivc": _SCT.InferiorVenaCava,
    "kidney": _SCT.Kidney,
    "left atrium": _SCT.LeftAtrium,
    "left ventricle": _SCT.LeftVentricle,
    "liver": _SCT.Liver,
    "lung": _SCT.Lung,
    "oesophagus": _SCT.Esophagus,
    "pancreas": _SCT.Pancreas,
    "portal and splenic vein": _SCT.Vein,
    "portal vein": _SCT.PortalVein,
    "portal vein and splenic vein": _SCT.Vein,
    "postcava": _SCT.InferiorVenaCava,
    "prostate": _SCT.Prostate,
    "prostate uterus": _SCT.Organ,
    "rectum": _SCT.Rectum,
    "small bowel": _SCT.SmallIntestine,
    "small intestine": _SCT.SmallIntestine,
    "spinal cord": _SCT.SpinalCord,
    "spleen": _SCT.Spleen,
    "splenic vein": _SCT.SplenicVein,
    "stomach": _SCT.Stomach,
    "trachea": _SCT.Trachea,
    "urinary bladder": _SCT.Bladder,
    "uterus": _SCT.Uterus,
}
_LESIONS = {
    "cancer": _SCT.Neoplasm,
    "cyst": _SCT.Cyst,
    "edema": _SCT.Edema,
    "lesion": _SCT.Lesion,
    "mass": _FINDINGS.Mass,
    "necrosis": _SCT.Necrosis,
    "neoplasm": _SCT.Neoplasm,
    "oedema": _SCT.Edema,
    "tumor": _SCT.Neoplasm,
}
_WHOLE_NAMES = {
    **{name: SegmentCodes(code) for name, code in _ORGANS.items()},
    **{name: SegmentCodes(code, _LESION) for name, code in _LESIONS.items()},
    "enhancing tumor": SegmentCodes(_NCIT.EnhancingLesion, _LESION, region=_SCT.Brain),
    "flair abnormality": SegmentCodes(_SCT.Lesion, _LESION, region=_SCT.Brain),
    "necrotic core": SegmentCodes(_SCT.Necrosis, _LESION, region=_SCT.Brain),
    "polyp": SegmentCodes(_SCT.PolypOfColon, _LESION),
    "tumor core": SegmentCodes(_SCT.Neoplasm, _LESION, region=_SCT.Brain),
    "whole tumor": SegmentCodes(_SCT.Neoplasm, _LESION, region=_SCT.Brain),
}
_SIDES = {"left": _SCT.Left, "right": _SCT.Right}
_LENGTHS = {"value": 16, "scheme": 16, "meaning": 64}  # of the DICOM attributes


def find_codes(name: str, own: Mapping[str, SegmentCodes] | None = None) -> SegmentCodes:
    """Codes by the name of a label.

    Case, `_`, `-` and `/` do not matter, a side may stand anywhere (`kidney_right`), and a lesion may follow
    its organ (`liver tumour`). Unknown names become anatomical structures of the type tissue.

    Args:
        name: Name of the label.
        own: Codes from `read_codes`, which precede the table.
    """
    plain = _plain(name)
    if (
        known := (own or {}).get(plain)
        or _WHOLE_NAMES.get(plain)
        or _WHOLE_NAMES.get(plain.removesuffix("s"))
    ):
        return known
    words = plain.split()
    side = next((_SIDES[word] for word in words if word in _SIDES), None)
    words = [word for word in words if word not in _SIDES]
    rest, lesion = " ".join(words), _LESIONS.get(words[-1]) if words else None
    if lesion and (region := _ORGANS.get(" ".join(words[:-1]))):
        return SegmentCodes(lesion, _LESION, side, region)
    base = _WHOLE_NAMES.get(rest) or _WHOLE_NAMES.get(rest.removesuffix("s")) or UNKNOWN
    return SegmentCodes(base.type, base.category, side, base.region)


def read_codes(path: str | os.PathLike[str]) -> dict[str, SegmentCodes]:
    """Read a user's codes from a JSON file.

    It holds `{"name": {"type": ["10200004", "SCT", "Liver"], "category": […], "modifier": […], "region":
    […]}}`, each code as value, coding scheme and meaning; all but the type may be left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not JSON of this form.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of codes at {path}. Check the name.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}.") from error
    form = (
        'Give {"my organ": {"type": ["10200004", "SCT", "Liver"]}}, with optional category, modifier, region.'
    )
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no names. {form}")
    codes = {}
    for name, parts in content.items():
        if (
            not isinstance(parts, dict)
            or "type" not in parts
            or parts.keys() - SegmentCodes.__dataclass_fields__
        ):
            raise ValueError(f"The codes of {name!r} in {path.name} are not understood. {form}")
        codes[_plain(name)] = SegmentCodes(**{part: _code(code, name, part) for part, code in parts.items()})
    return codes


def _code(given: object, name: str, part: str) -> Code:
    if (
        not isinstance(given, list)
        or len(given) != 3
        or not all(isinstance(v, str) and v.strip() for v in given)
    ):
        raise ValueError(
            f"The {part} of {name!r} is {given!r}. Give value, coding scheme and meaning, three texts."
        )
    for text, (what, most) in zip(given, _LENGTHS.items(), strict=True):
        if len(text) > most or "\\" in text:
            raise ValueError(
                f"The {what} {text!r} of {name!r} is not allowed: at most {most} letters, no backslash."
            )
    return Code(*given)


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-/]", " ", name.casefold()).split()).replace("tumour", "tumor")

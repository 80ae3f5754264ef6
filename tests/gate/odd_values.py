"""Values, flaws and files that the requests of `infer_grammar` are made of."""

from __future__ import annotations

import io
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

MODELS = (
    "classical",
    "classical",
    "classical_3d",
    "segmed",
    "segmed",
    "segmed_3d",
    "nothing",
    "segmed%20",
    "..",
    "",
)


EXTENSIONS = (".nrrd", ".nii.gz", ".nii", ".seg.nrrd", ".exe", "", "../x", 7, None)


STRINGS = (
    "",
    "x",
    "läsion 腫瘍 😀",
    "\u202e\u0000",
    "a" * 300,
    "-1",
    "NaN",
    "../../etc/passwd",
    "%00",
    "{}",
    "cpu",
    "null",
)


NUMBERS = (0, 1, -1, 3, 12, 0.5, -0.0, 1e-300, 1e300, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**30)


LITERALS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "[" * 200 + "]" * 200,
    '"\\ud800"',
    "tru",
    "'x'",
    "01",
)


FLAWS = (
    '{"roi": [1, 2, 3}',
    "{",
    "[]",
    "7",
    "null",
    '"text"',
    "\ufeff{}",
    '{"a": 1}{"a": 2}',
    "{'roi': []}",
    '{"roi": [1,9,1,9,2,2],}',
)


TYPES = (
    None,
    "",
    "application/json",
    "text/plain",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=other",
    'multipart/form-data; boundary="a\r"',
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "multipart/mixed; boundary=edge",
    "multipart/form-data; charset=utf-16; boundary=edge",
)


PLAIN: dict[str, Any] = {
    "label": "liver",
    "label_info": [{"name": "liver", "idx": 1}],
    "selected_label_name": "liver",
    "window": None,
    "device": None,
    "output": "mask",
    "clean": "holes",
    "refinement": "nothing",
    "denoise": "gaussian",
    "result_extension": ".nii.gz",
    "result_compress": True,
}


WINDOWS = ("auto", "ct", "40,400", "soft tissue", "-1,0", "nan,1", "0,0", "1e300,1", "percentile", 5, None)


def label_file(shape: tuple[int, int, int]) -> bytes:
    labels = np.zeros(shape, np.uint8)
    labels[: shape[0] // 2, : shape[1] // 2] = 1
    return bytes(nib.Nifti1Image(labels, np.eye(4)).to_bytes())


def picture_file() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(out, "PNG")
    return out.getvalue()

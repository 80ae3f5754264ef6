"""Codes of structures: the dictionary, names that are understood, and codes of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code
from segmed.data.datasets import amos, btcv, flare
from segmed.data.phantom.volume import _ORGANS
from segmed.dicom import codes as codes_module
from segmed.dicom.codes import UNKNOWN, find_codes, read_codes


def test_every_code_stands_in_the_dictionary() -> None:
    dictionary: Any = concepts
    known = {
        (scheme, value) for scheme, names in dictionary.items() for found in names.values() for value in found
    }
    for found in codes_module._WHOLE_NAMES.values():
        for code in (found.type, found.category, found.modifier, found.region):
            assert code is None or (code.scheme_designator, code.value) in known


@pytest.mark.parametrize(
    ("name", "value", "side", "region"),
    [
        ("liver", "10200004", None, None),
        ("Right Kidney", "64033007", "24028007", None),
        ("kidney_left", "64033007", "7771000", None),
        ("kidneys", "64033007", None, None),
        ("left adrenal gland", "23451007", "7771000", None),
        ("postcava", "64131007", None, None),
        ("left atrium", "82471001", None, None),
        ("liver tumour", "108369006", None, "10200004"),
        ("left kidney cyst", "367643001", "7771000", "64033007"),
        ("enhancing tumour", "C113842", None, "12738006"),
        ("polyp", "68496003", None, None),
        ("lesion", "52988006", None, None),
        ("left thing", "85756007", "7771000", None),
        ("", "85756007", None, None),
    ],
)
def test_codes_by_name(name: str, value: str, side: str | None, region: str | None) -> None:
    found = find_codes(name)
    assert found.type.value == value
    assert (found.modifier.value if found.modifier else None) == side
    assert (found.region.value if found.region else None) == region


def test_every_organ_of_the_datasets_is_coded() -> None:
    names = {name for module in (flare, amos, btcv) for name in module.LABELS.values()} | set(_ORGANS)
    assert {name for name in names if find_codes(name).type == UNKNOWN.type} == set()


def test_codes_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text(
        json.dumps(
            {"My_Organ": {"type": ["1234", "99ME", "My organ"]}, "liver": {"type": ["5", "99ME", "Leber"]}}
        )
    )
    own = read_codes(path)
    assert find_codes("my organ", own).type == Code("1234", "99ME", "My organ")
    assert find_codes("Liver", own).type.value == "5"
    assert find_codes("spleen", own).type.value == "78961009"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no names"),
        ('{"a": 3}', "codes of 'a'"),
        ('{"a": {"category": ["1", "SCT", "b"]}}', "codes of 'a'"),
        ('{"a": {"type": ["1", "SCT", "b"], "colour": 3}}', "codes of 'a'"),
        ('{"a": {"type": ["1", "SCT"]}}', "three texts"),
        ('{"a": {"type": ["1", "SCT", 7]}}', "three texts"),
        ('{"a": {"type": ["12345678901234567", "SCT", "b"]}}', "at most 16 letters"),
    ],
)
def test_codes_that_are_not_understood(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "codes.json").write_text(content)
    with pytest.raises(ValueError, match=says):
        read_codes(tmp_path / "codes.json")
    with pytest.raises(FileNotFoundError, match="no file of codes"):
        read_codes(tmp_path / "none.json")

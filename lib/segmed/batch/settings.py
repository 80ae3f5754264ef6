"""What decides the results of a run; it is kept in the manifest and the same when the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from segmed.registry.predictors import find_model

MASK_FORMATS = (".nii.gz", ".nrrd", ".seg.nrrd")
BOXES, DETECTOR, NOTHING = "boxes", "detector", "none"
PLACES = ("device", "registry", "boxes")  # may change between the starts of a run; the file by its checksum


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        source: Folder, list, image or DICOMweb address.
        model: Model as the viewers name it.
        version: Version in the registry, or "untrained"; pinned when the run is planned.
        backbone: SAM weights, "" for those of the method.
        precision: Of the encoder.
        window: Intensity window.
        prompts: "boxes", "detector" or "none".
        boxes: File of boxes.
        boxes_sha: SHA-256 of that file.
        detector_version: Version of the detector; pinned as well.
        extension: Of masks, one of `MASK_FORMATS`.
        seg: Whether to write DICOM SEG.
        send: Whether to send it to the PACS.
        previews: Whether to write pictures.
        filters: Search keys of DICOMweb and their values.
        modalities: Of series, for DICOM.
        device: Such as `cpu`; "" takes the GPU if there is one.
        registry: Folder of trained models.
        uncertainty: Whether to measure how uncertain the model is about each image.
    """

    source: str
    model: str
    version: str = ""
    backbone: str = ""
    precision: str = "auto"
    window: str = "auto"
    prompts: str = NOTHING
    boxes: str = ""
    boxes_sha: str = ""
    detector_version: str = ""
    extension: str = ".nii.gz"
    seg: bool = False
    send: bool = False
    previews: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    device: str = ""
    registry: str = ""
    uncertainty: bool = False

    def __post_init__(self) -> None:
        if self.extension not in MASK_FORMATS:
            raise ValueError(f"Masks are written as {', '.join(MASK_FORMATS)}, not as {self.extension!r}.")
        if self.send and not self.is_pacs:
            raise ValueError(
                "--send returns DICOM SEG to the PACS that the images come from. Give its DICOMweb address "
                "as the source, or take --seg to write files."
            )
        if (self.filters or self.modalities) and not self.is_pacs:
            raise ValueError(
                "--filter and --modalities select series of a PACS. Leave them out for folders and lists."
            )

    @property
    def is_pacs(self) -> bool:
        """Whether images come from a PACS."""
        return self.source.startswith(("http://", "https://"))

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self) | {"modalities": list(self.modalities)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunSettings:
        """The settings of a manifest; keys of later versions are left out."""
        known = {name: data[name] for name in (f.name for f in fields(cls)) if name in data}
        return cls(**(known | {"modalities": tuple(data.get("modalities", ()))}))

    def resumed(self, wanted: RunSettings, out: Path) -> RunSettings:
        """These settings of a manifest, for a run that is started again with `wanted`.

        A version that is not named is the pinned one, whatever is served by now.

        Raises:
            ValueError: Anything that decides the results is different.
        """
        pinned = {"version": self.version, "detector_version": self.detector_version}
        for name in (f.name for f in fields(self)):
            before, now = getattr(self, name), getattr(wanted, name)
            if name in PLACES or before == now or (name in pinned and not now):
                continue
            raise ValueError(
                f"The run in {out} was planned with {name} {before!r}, not {now!r}. Results of both would be "
                "mixed: give the same settings, or another --out."
            )
        return RunSettings(**{**_values(self), **{name: getattr(wanted, name) for name in PLACES}})


def check_prompts(settings: RunSettings) -> None:
    """Refuse a model without the prompts that it needs, or with prompts that it cannot take.

    Raises:
        ValueError: The prompts do not suit the model, or there is no such model.
        FileNotFoundError: Weights are not there.
    """
    method, model = find_model(settings.model, settings.backbone, settings.precision), settings.model
    automatic = method.detects or (method.automatic and model == method.name)
    if not automatic and settings.prompts == NOTHING:
        raise ValueError(
            f"The model {model!r} needs prompts. Give --boxes FILE, or --detector if you have trained one, "
            "or take a model that labels by itself, such as unet or auto."
        )
    if automatic and settings.prompts != NOTHING:
        raise ValueError(f"The model {model!r} takes no prompts. Leave --boxes and --detector out.")


def _values(settings: RunSettings) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in fields(settings)}

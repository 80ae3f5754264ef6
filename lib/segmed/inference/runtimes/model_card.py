"""The description of an exported model, `README.md`."""

from __future__ import annotations

from pathlib import Path

import segmed
from segmed.inference.runtimes.bundle import Source
from segmed.methods import find_method
from segmed.methods.base.segmenter import Segmenter

_GRAPHS = (
    "`encoder{0}` runs once per slice, `decoder{0}` once per prompt; the default model and the U-Nets have "
    "one `network{0}`. `segmed.json` lists inputs, outputs and how a slice is prepared."
)
_USE = {
    "onnx": _GRAPHS.format(".onnx"),
    "openvino": _GRAPHS.format(".xml"),
    "hf": "Load it with `from_pretrained` of the class that `config.json` names under `architectures`, or "
    "in SegMed with `--conf backbone FOLDER`.",
    "bundle": "Run it in this folder, with MONAI and SegMed installed: `python -m monai.bundle run "
    "--config_file configs/inference.json --image ct.nii.gz --box [28,98,40,103,29,29] --output "
    "mask.nii.gz`.",
}
_PROMPTS = (
    "Points are in px of the model input. Their labels are 1 on the object, 0 beside it, 2 and 3 for the "
    "first and the last corner of a box, and -1 for the point (0, 0) that follows clicks without a box. "
    "Masks are logits with the threshold 0: first the single mask, then those for an ambiguous click."
)
_LIMITS = (
    "For research; not a medical device. The licence is that of the base weights and of the data that the "
    "model was trained on."
)


def write_model_card(segmenter: Segmenter, source: Source, to: str, folder: Path) -> None:
    """Write `README.md` with what the model is, where it comes from and how it is used."""
    method = find_method(source.method)
    size = f"{segmenter.input_size} px" if segmenter.input_size else "windows around the prompt"
    aspect = "scaled by the longer side and padded" if segmenter.keep_aspect else "stretched to a square"
    decodes = to in ("onnx", "openvino") and segmenter.input_size and not segmenter.keeps_slices
    lines = [
        "---",
        "library_name: " + ("transformers" if to == "hf" else "monai" if to == "bundle" else to),
        "pipeline_tag: mask-generation",
        "tags: [medical, segmentation, segmed]",
        "---",
        "",
        f"# {source.method} {source.version or 'untrained'}",
        "",
        f"{method.title}. Exported by SegMed {segmed.__version__}.",
        "",
        "| | |",
        "|---|---|",
        f"| method | `{source.method}` |",
        f"| version | `{source.version or 'untrained'}` |",
        f"| weights | `{segmenter.version}` |",
        f"| base weights | {source.base_name or 'none'} |",
        f"| input | {size}, {aspect} |",
        f"| structures | {', '.join(segmenter.labels) or 'what is prompted'} |",
        "",
        _USE[to],
        "",
        *([_PROMPTS, ""] if decodes else []),
        *source.facts,
        _LIMITS,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")

"""Export of a method for other programs: ONNX, OpenVINO, the format of Hugging Face, or a MONAI bundle."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segmed.inference.runtimes.bundle import Source, write_bundle
from segmed.inference.runtimes.model_card import write_model_card
from segmed.methods.base.graph import Graph
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.sam.pretrained import save_for_transformers
from segmed.methods.sam.sharing import share_weights

FORMATS = ("onnx", "openvino", "hf", "bundle")
_OPSET = 17
_OTHERWISE = "Choose bundle, which runs every method where SegMed is installed."
_TOLERANCE = 1e-3  # largest difference of a checked output from PyTorch's, in its standard deviations


def export_method(segmenter: Segmenter, source: Source, to: str, folder: Path) -> None:
    """Write a method to a new folder, which appears complete or not at all.

    Args:
        segmenter: The method, in float32 on the CPU.
        source: Where its weights come from.
        to: One of `FORMATS`.
        folder: The folder, which must not exist.

    Raises:
        ValueError: If the method cannot be exported to this format, a package is missing, or the files give
            other results than PyTorch.
        FileExistsError: If the folder exists.
    """
    if to not in FORMATS:
        raise ValueError(f"There is no format {to!r}. Choose one of {', '.join(FORMATS)}.")
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Give the name of a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        _write(segmenter, source, to, part)
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write(segmenter: Segmenter, source: Source, to: str, folder: Path) -> None:
    if to == "bundle":
        write_bundle(segmenter, source, folder)
        return
    if to == "hf":
        try:
            save_for_transformers(segmenter, folder)
        except ValueError as error:
            raise ValueError(f"{source.method} cannot be exported to hf: {error} {_OTHERWISE}") from None
        write_model_card(segmenter, source, to, folder)
        return
    try:
        graphs = segmenter.graphs()
    except ValueError as error:
        raise ValueError(f"{source.method} cannot be exported to {to}. {error} {_OTHERWISE}") from None
    for graph in graphs:
        _EXPORTERS[to](graph, folder)
    facts = {
        "method": source.method,
        "version": segmenter.version,
        "graphs": {graph.name: _shapes(graph) for graph in graphs},
        "preprocessing": preprocessing(segmenter),
    }
    (folder / "segmed.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    write_model_card(segmenter, source, to, folder)


def _shapes(graph: Graph) -> dict[str, Any]:
    """Inputs with their axes, of which free ones have a name, and the names of the outputs."""
    inputs = {
        name: [graph.free.get(name, {}).get(axis, n) for axis, n in enumerate(t.shape)]
        for name, t in graph.inputs.items()
    }
    return {"inputs": inputs, "outputs": list(graph.outputs)}


@torch.no_grad()
def preprocessing(segmenter: Segmenter) -> dict[str, Any]:
    """How a slice becomes the input of the encoder: size, aspect, and per channel the mean and standard
    deviation that are applied to pixels in [0, 1]; the two are found by encoding a black and a white slice.
    """
    found: dict[str, Any] = {"input_size": segmenter.input_size, "keep_aspect": segmenter.keep_aspect}
    seen: list[Tensor] = []
    probe = share_weights(segmenter)
    graphs = {graph.name: graph for graph in probe.graphs()}
    if "encoder" not in graphs:
        return found

    def record(pixels: Tensor) -> tuple[Tensor, ...]:
        seen.append(pixels)
        return (torch.zeros(1, 1, 1, 1),)

    probe.run_by({"encoder": record, "decoder": record})
    for value in (0.0, 1.0):
        probe.encode(torch.full_like(graphs["encoder"].inputs["pixel_values"], value))
    black, white = (pixels[0, :, 0, 0].double() for pixels in seen)
    sd = 1 / (white - black)
    return {**found, "mean": (-black * sd).tolist(), "sd": sd.tolist()}


def _export_onnx(graph: Graph, folder: Path) -> None:
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        raise ValueError(
            "Export to ONNX needs packages that are not installed. Run `pip install 'segmed[onnx]'` (in a "
            "checkout `pip install -r requirements-onnx.txt`)."
        )
    path = folder / f"{graph.name}.onnx"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tracing finds constant is constant here
        torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: dict(axes) for name, axes in graph.free.items()},
            opset_version=_OPSET,
            dynamo=False,
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> list[Any]:
        return list(session.run(list(graph.outputs), {name: t.numpy() for name, t in inputs.items()}))

    _check(graph, run, path)


def _export_openvino(graph: Graph, folder: Path) -> None:
    from segmed.inference.runtimes.library import openvino
    from segmed.inference.runtimes.openvino_graphs import to_openvino
    from segmed.methods.base.backbone import check_runtime

    check_runtime("openvino")
    path = folder / f"{graph.name}.xml"
    openvino().save_model(to_openvino(graph), path, compress_to_fp16=False)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino().Core().compile_model(path, "CPU", settings)

    def run(inputs: Mapping[str, Tensor]) -> list[Any]:
        out = compiled({name: t.numpy() for name, t in inputs.items()})
        return [out[name] for name in graph.outputs]

    _check(graph, run, path)


_EXPORTERS: Mapping[str, Callable[[Graph, Path], None]] = {"onnx": _export_onnx, "openvino": _export_openvino}


@torch.no_grad()
def _check(graph: Graph, run: Callable[[Mapping[str, Tensor]], list[Any]], path: Path) -> None:
    """Raises ValueError if a file gives other outputs than PyTorch for random inputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        name: t + torch.rand(t.shape, generator=generator) * (not name.startswith(("labels", "has_")))
        for name, t in graph.inputs.items()
    }
    for name, wanted, found in zip(graph.outputs, graph.run(*inputs.values()), run(inputs), strict=True):
        error = (torch.from_numpy(found) - wanted).abs().max() / wanted.std().clamp(min=1e-6)
        if not error <= _TOLERANCE:
            raise ValueError(
                f"{path.name} gives another output {name!r} than PyTorch (largest difference "
                f"{float(error):.2g} standard deviations), so nothing was exported. Report this with the "
                "version of PyTorch."
            )

"""`segmed models export`: a served version for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from segmed.places import REGISTRY

console = Console(stderr=True)


class Format(StrEnum):
    """What can be written."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    HF = "hf"
    BUNDLE = "bundle"


def export_model(
    name: Annotated[str, typer.Argument(help="Name of the method, such as segmed or lora.")],
    to: Annotated[Format, typer.Option(help="ONNX, OpenVINO, a Hugging Face folder, or a MONAI bundle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, which must not exist.")],
    version: Annotated[str, typer.Option(help="Of the model; the served one if not given.")] = "",
    backbone: Annotated[
        str, typer.Option(help="Base weights that it was trained on, or of a method without training.")
    ] = "",
    registry: Annotated[
        Path, typer.Option("--registry", help="Folder that training keeps its models in.")
    ] = REGISTRY,
) -> None:
    """Export a model with a description of its inputs.

    Without a trained version, methods that work untrained are exported with their base weights. ONNX and
    OpenVINO files are compared with PyTorch before the folder appears.

    Example: `segmed models export segmed --to onnx -o segmed-onnx`
    """
    from segmed.inference.loading import Loader
    from segmed.inference.runtimes.bundle import Source
    from segmed.inference.runtimes.export import export_method
    from segmed.methods import find_method
    from segmed.methods.base.backbone import BackboneConfig, check_runtime
    from segmed.registry.card_facts import card_facts
    from segmed.registry.versions import Registry
    from segmed.sam.sources import EMBEDDED, local_source

    try:
        method = find_method(name)
        if to is Format.OPENVINO:
            check_runtime("openvino")
        models = Registry(registry)
        found = models.get(name, version) if version else models.served(name)
        if found is not None and found.damage:
            raise ValueError(f"{name} {found.version} is damaged: {found.damage}.")
        if found is None and not method.ready:
            raise ValueError(f"{name} has not been trained. Train it, or give --registry.")
        named = backbone or method.weights or ("" if method.ready or not method.needs_backbone else EMBEDDED)
        with console.status(f"loading {name}"):
            segmenter = Loader().get(
                name, BackboneConfig(named, precision="fp32"), "cpu", found.folder if found else None
            )
        base = Path(local_source(named)) if method.needs_backbone else None
        source = Source(
            name,
            found.version if found else "",
            found.folder if found else None,
            base,
            named if base else "",
            card_facts(found.record) if found and found.record else (),
        )
        with console.status(f"exporting to {to}"):
            export_method(segmenter, source, to, out)
        console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error

"""`segmed models import`: makes a version of weights that another program trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from segmed.places import REGISTRY

console = Console(stderr=True)


def import_model(
    name: Annotated[str, typer.Argument(help="Name of the method; lora takes files of SAMed.")],
    file: Annotated[Path, typer.Argument(help="File of weights, such as SAMed's epoch_159.pth.")],
    labels: Annotated[
        str, typer.Option(help="Names of the structures with commas, class 1 first, without the background.")
    ],
    backbone: Annotated[str, typer.Option(help="Base weights that it was trained on.")] = "sam-vit-base",
    image_size: Annotated[int, typer.Option(help="Input size in px that it was trained at.")] = 512,
    registry: Annotated[
        Path, typer.Option("--registry", help="Folder that training keeps its models in.")
    ] = REGISTRY,
) -> None:
    """Make a version of a method from a file of another program; `promote` serves it.

    Example: `segmed models import lora epoch_159.pth --labels "spleen,right kidney,left kidney"`
    """
    from segmed.methods.base.backbone import BackboneConfig
    from segmed.methods.base.trainable import save_trained
    from segmed.registry.model_version import DataFingerprint, VersionRecord, checksum
    from segmed.registry.versions import Registry

    try:
        if name != "lora":
            raise ValueError(f"Files of other programs are known for lora only, not for {name!r}.")
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file}.")
        base = BackboneConfig(backbone, image_size, "fp32")
        from segmed.methods.samed import read_samed
        from segmed.sam.weights import load_sam, weights_version

        with console.status(f"reading {file.name}"):
            model = load_sam(base.source, base.image_size)
            names = tuple(part.strip() for part in labels.split(","))
            segmenter = read_samed(file, names, model)
        facts = {"start": "imported", "file": file.name, "sha256": checksum(file), "backbone": backbone}
        record = VersionRecord((), DataFingerprint((), {}, {}), {**facts, "image_size": image_size})
        found = Registry(registry).add(
            name, lambda folder: save_trained(segmenter, folder, weights_version(model)), record
        )
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    told = (
        f"{name} {found.version} is kept, not served. Serve it:\n"
        f"segmed models promote {name} {found.version}\n"
        f"segmed serve --conf models {name} --conf backbone {backbone} --conf image_size {image_size}"
    )
    console.print(told, markup=False, highlight=False, soft_wrap=True)

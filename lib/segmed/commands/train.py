"""`segmed train`: from labelled cases to a served model, in the shell or under torchrun."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segmed.commands.models import REGISTRY

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.data.slices import SliceDataset
    from segmed.methods.base.backbone import BackboneConfig

console = Console(stderr=True)


def train(
    method: Annotated[
        str, typer.Option(help="What to train, such as medsam, lora or unet; `segmed info` lists all.")
    ],
    studies: Annotated[
        Path | None, typer.Option(help="Studies folder of a server, with submitted labels.")
    ] = None,
    data: Annotated[str, typer.Option(help="Dataset, as `segmed data list` shows it; needs --root.")] = "",
    root: Annotated[Path | None, typer.Option(help="Folder of the dataset.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="KEY=VALUE of the dataset, repeatable.", metavar="K=V"),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Structures to learn from --studies, with commas; all if not given.")
    ] = "",
    patients: Annotated[int, typer.Option(help="Take so many patients at most, at random; 0 takes all.")] = 0,
    backbone: Annotated[
        str,
        typer.Option(
            help="SAM weights: name of `segmed weights list`, folder, .pth file, or Hugging Face id; "
            "else the embedded ones."
        ),
    ] = "",
    image_size: Annotated[int, typer.Option(help="Input size in px, if not that of the weights.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the method, such as rank=8 or preset=full.", metavar="K=V"),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 30,
    batch: Annotated[int, typer.Option(help="Slices per step, all processes together.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="0 takes that of the recipe.")] = 0.0,
    validation: Annotated[float, typer.Option(help="Share of the patients held out.")] = 0.2,
    patience: Annotated[int, typer.Option(help="Epochs without gain before training ends.")] = 10,
    epoch_steps: Annotated[
        int, typer.Option(help="Least steps of an epoch; few data are gone over again.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of the split and of all that is drawn.")] = 0,
    augment: Annotated[bool, typer.Option("--augment", help="Augment slices at random.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin with the base weights, not with what is served.")
    ] = (False),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; the GPU if there is one.")] = "",
    registry: Annotated[Path, typer.Option(help="Folder that keeps the models.")] = REGISTRY,
) -> None:
    """Train a method, compare it with what is served, and serve it if it is better.

    An interrupted training goes on when the same command is given again. Several GPUs or machines:
    `torchrun --nproc_per_node 4 -m segmed.cli train --method lora …`

    Example: `segmed train --method lora --studies ~/studies --labels liver,spleen`
    """
    try:
        base = _base(method, backbone, image_size)
        settings, options = pairs(setting, literal), pairs(option, str)
        _check_source(studies, data, root)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    import torch

    from segmed.registry.versions import Registry
    from segmed.training.finetune_config import FinetuneConfig
    from segmed.training.job import JobConfig, train_model
    from segmed.training.processes import Processes, torchrun_processes

    first = int(os.environ.get("RANK", 0)) == 0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task("reading", total=None)

    def tell(progress: Any) -> None:
        text = (
            f"pass {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  best Dice "
            f"{progress.best:.3f}"
        )
        bar.update(task, description=text, completed=progress.step, total=progress.steps)

    try:
        slices = _open(studies, data, root, options, labels, patients, seed)
        config = JobConfig(
            settings,
            FinetuneConfig(epochs=epochs, epoch_steps=epoch_steps, batch=batch, patience=patience, seed=seed),
            learning_rate or None,
            validation,
            augment,
            fresh,
        )
        if first:
            bar.start()
        with torchrun_processes(device or ("cuda" if torch.cuda.is_available() else "cpu")) as mine:
            result = train_model(
                method,
                base,
                slices,
                Registry(registry),
                registry / ".runs" / method / "command",
                config,
                mine,
                tell if first else None,
            )
            first = Processes.current().first
    except (ValueError, OSError) as error:
        bar.stop()
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    bar.stop()
    if first:
        console.print(result.message, markup=False, highlight=False, soft_wrap=True)
        if result.version:
            state = "served from the next prompt on" if result.version.served else "kept, not served"
            console.print(
                f"{method} {result.version.version}: {state}", markup=False, highlight=False, soft_wrap=True
            )


def _base(method: str, backbone: str, image_size: int) -> BackboneConfig:
    from segmed.methods import find_method
    from segmed.methods.base.backbone import BackboneConfig
    from segmed.sam.sources import EMBEDDED

    return BackboneConfig(backbone or find_method(method).weights or EMBEDDED, image_size or None, "fp32")


def _check_source(studies: Path | None, name: str, root: Path | None) -> None:
    if (studies is None) == (not name) or (name and root is None):
        raise ValueError("Give either --studies FOLDER, or --data NAME with --root FOLDER.")


def _open(
    studies: Path | None,
    name: str,
    root: Path | None,
    options: dict[str, Any],
    labels: str,
    patients: int,
    seed: int,
) -> SliceDataset:
    import numpy as np

    from segmed.data.datasets.catalogue import load_dataset

    found = (
        load_dataset("datastore", studies, **{"labels": labels, **options})
        if studies
        else load_dataset(name, root or "", **options)
    )
    if 0 < patients < len(found.patients):
        found = found.of(np.random.default_rng(seed).permutation(found.patients)[:patients].tolist())
    return found


def pairs(words: list[str] | None, read: Any) -> dict[str, Any]:
    """KEY=VALUE as a dictionary of what `read` makes of the values."""
    if wrong := [word for word in words or () if "=" not in word]:
        raise ValueError(f"{wrong[0]!r} is not understood. Give KEY=VALUE.")
    return {key: read(value) for key, value in (word.split("=", 1) for word in words or ())}


def literal(text: str) -> Any:
    """A number, true or false if it is one, in any spelling of upper and lower case, else the word."""
    lower = text.strip().lower()
    try:
        return json.loads(lower if lower in ("true", "false") else text)
    except ValueError:
        return text

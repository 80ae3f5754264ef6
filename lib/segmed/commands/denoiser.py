"""`segmed denoiser`: trains a denoiser on the user's images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)


class Noise(StrEnum):
    """What it learns from."""

    GAUSSIAN = "gaussian"
    RICIAN = "rician"
    OWN = "own"


def denoiser(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights to write, .safetensors.")],
    noise: Annotated[
        Noise, typer.Option(help="Added for training (CT, MR), or the images' own.")
    ] = Noise.GAUSSIAN,
    sigma: Annotated[float, typer.Option(help="Strongest noise that is added, of 255.")] = 25.0,
    steps: Annotated[int, typer.Option(help="Of the optimiser.")] = 2000,
    depth: Annotated[int, typer.Option(help="Layers of the network.")] = 17,
    width: Annotated[int, typer.Option(help="Channels of the network; 16 is fast on a CPU.")] = 64,
    window: Annotated[str, typer.Option(help="Intensity window, such as auto or ct-lung.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
) -> None:
    """Train a DnCNN that removes noise from images such as these.

    The server offers it as the option `denoise` of every prompt model with `--conf denoiser FILE`, and
    `segmed predict` takes `--denoise FILE`. Images with little noise teach by `--noise gaussian` or `rician`;
    with `--noise own` noisy ones teach by themselves.
    """
    from segmed.denoising.dncnn import DnCnnConfig, save_dncnn
    from segmed.denoising.training import DenoisingConfig, train_dncnn
    from segmed.imaging.picture import open_picture
    from segmed.imaging.reading import EXTENSIONS, extension_of

    try:
        if not out.parent.is_dir() or out.is_dir():
            raise FileNotFoundError(
                f"{out} cannot be written. Give the name of a file in a folder that exists."
            )
        files = sorted(p for p in images.rglob("*") if p.is_file() and extension_of(p) in EXTENSIONS)
        if not files:
            raise FileNotFoundError(
                f"There is no image in {images}. Give a folder of {', '.join(EXTENSIONS)} files."
            )
        config = DenoisingConfig(noise.value, sigma, steps)
        with console.status(f"reading {len(files)} images"):
            pictures = [open_picture(path, window) for path in files]
        bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console)
        task = bar.add_task("teaching", total=steps)
        with bar:
            model = train_dncnn(
                pictures,
                config,
                DnCnnConfig(depth, width),
                device,
                lambda step, _, loss: bar.update(
                    task, completed=step, description=f"error {255 * loss**0.5:.1f} of 255"
                ),
            )
        save_dncnn(model, out, {"noise": noise.value, "sigma": f"{sigma:g}", "steps": str(steps)})
        console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error

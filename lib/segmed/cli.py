"""The `segmed` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

import segmed
from segmed.commands import data, models
from segmed.commands.denoiser import denoiser
from segmed.commands.export import export
from segmed.commands.features import features
from segmed.commands.report import report
from segmed.commands.train import train

if TYPE_CHECKING:  # numpy and torch are imported late, so that --help answers at once
    import numpy as np

    from segmed.imaging.picture import Picture
    from segmed.methods.segmenter import Method

app = typer.Typer(
    help="SegMed: segment medical images with the SAM family. Start with `segmed serve`, or with `segmed predict`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.command()(train)
app.command()(features)
app.command()(export)
app.command()(denoiser)
app.command()(report)
console = Console(stderr=True)
APP_DIR = Path(__file__).resolve().parents[2] / "apps" / "segmed"

Conf = Annotated[
    list[str] | None, typer.Option("--conf", help="KEY=VALUE, repeatable; `segmed info` lists the keys.", metavar="K=V")
]


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="NIfTI, NRRD, PNG, JPEG, TIFF, or a folder of one DICOM series.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Mask to write: .nii.gz, .nrrd or .png (one slice).")],
    box: Annotated[
        list[str] | None,
        typer.Option(help="Box in voxels: i0,i1,j0,j1,k0,k1 (i0,i1,j0,j1 for 2-D images). Repeat for more objects."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="Click into the object, in voxels: i,j,k. Repeatable.")
    ] = None,
    not_point: Annotated[list[str] | None, typer.Option(help="Click beside the object: i,j,k. Repeatable.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A previous mask on the same grid, to be refined.")] = None,
    model: Annotated[str, typer.Option(help="Method; add _3d to fill the volume instead of the slice.")] = "",
    backbone: Annotated[str, typer.Option(help="SAM weights: folder, .pth file, or Hugging Face id.")] = "",
    window: Annotated[str, typer.Option(help="Intensity window, such as auto or ct-lung.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; the GPU if there is one.")] = "",
    precision: Annotated[str, typer.Option(help="Of the image encoder: auto, bf16 or fp32.")] = "auto",
    finish: Annotated[str, typer.Option(help="Done to each mask: outline, crf or level set.")] = "",
    denoise: Annotated[str, typer.Option(help="gaussian, or a file that `segmed denoiser` wrote.")] = "",
) -> None:
    """Segment one image from boxes and clicks, without a server.

    Several boxes give labels 1, 2, … in their order; clicks belong to the box around them, or to the only object.

    Example: `segmed predict ct.nii.gz --box 40,120,60,140,30,30 --model medsam_3d --backbone medsam_vit_b.pth
    -o liver.nii.gz`
    """
    from segmed.imaging.masks import mask_extension

    try:
        mask_extension(str(out))
        if out.is_dir():
            raise ValueError(f"{out} is a folder. Give the name of a file.")
        if not out.parent.is_dir():
            raise FileNotFoundError(f"The folder {out.parent} does not exist. Make it first.")
        found = _predict(
            image,
            box or [],
            point or [],
            not_point or [],
            mask,
            (model, backbone, window, device, precision, finish, denoise),
        )
        _write(out, *found)
    except (ValueError, OSError) as error:
        _say(str(error), "red")
        raise typer.Exit(2) from error


def _predict(
    image: Path, boxes: list[str], points: list[str], not_points: list[str], mask: Path | None, options: tuple[str, ...]
) -> tuple[np.ndarray, Picture]:
    import numpy as np
    import torch

    from segmed.imaging.denoised import gaussian
    from segmed.imaging.masks import stack_slices
    from segmed.imaging.picture import open_picture
    from segmed.imaging.prompts import parse_prompt
    from segmed.imaging.reading import read_volume
    from segmed.imaging.store import ByteBoundedStore
    from segmed.methods.dncnn import load_dncnn
    from segmed.methods.loading import BackboneConfig, Loader, find_method
    from segmed.methods.predictor import Predictor
    from segmed.methods.refinement import REFINEMENTS

    model, backbone, window, device, precision, finish, denoise = options
    if finish and finish not in REFINEMENTS:
        raise ValueError(f"--finish {finish!r} must be one of {', '.join(REFINEMENTS)}.")
    method = (model or ("medsam" if backbone else "segmed")).removesuffix("_3d")
    device = device or ("cuda" if torch.cuda.is_available() and find_method(method).needs_backbone else "cpu")
    _check_device(device)
    with console.status(f"reading {image.name}"):
        picture = open_picture(image, window)
        if denoise:
            picture = (gaussian() if denoise == "gaussian" else load_dncnn(Path(denoise)))(picture)
        previous = read_volume(mask).array > 0 if mask else None
    with console.status(f"loading {method}"):
        segmenter, warning = Loader().get_or_fallback(method, BackboneConfig(backbone, precision=precision), device)
    if warning:
        _say(warning, "yellow")
    predictor = Predictor(segmenter, ByteBoundedStore(2**30), batch=4 if device != "cpu" else 1)
    segment = predictor.segment_volume if model.endswith("_3d") else predictor.segment_slices
    flat = picture.shape[2] == 1
    rois = [_numbers(b, 4 if flat else 6, 6, "--box") for b in boxes]
    rois = [roi if len(roi) == 6 else [*roi, 0, 0] for roi in rois]
    fore = [_numbers(p, 2 if flat else 3, 3, "--point") for p in points]
    back = [_numbers(p, 2 if flat else 3, 3, "--not-point") for p in not_points]
    if len(rois) > 255:
        raise ValueError(f"{len(rois)} boxes are too many for one mask, which holds 255 labels. Split them.")
    if len(rois) > 1 and (stray := [p for p in fore if not any(_inside(p, roi) for roi in rois)]):
        _say(f"{len(stray)} of the clicks lie in none of the boxes and are ignored.", "yellow")
    labels = np.zeros(picture.shape, np.uint8)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        for value, roi in enumerate(rois or [None], start=1):
            mine = fore if len(rois) < 2 else [p for p in fore if _inside(p, roi)]
            prompt, warnings = parse_prompt(picture.shape, roi, mine, back, previous)
            for warning in warnings:
                _say(warning, "yellow")
            task = bar.add_task(f"object {value}, slices", total=None)

            def advance(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            found = stack_slices(segment(picture, prompt, advance, REFINEMENTS.get(finish)), picture.shape)
            done = max(int(bar.tasks[task].completed), 1)
            bar.update(task, total=done, completed=done)
            labels[(found > 0) & (labels == 0)] = value
    return labels, picture


def _write(out: Path, labels: np.ndarray, picture: Picture) -> None:
    import numpy as np

    from segmed.imaging.masks import write_mask

    write_mask(labels, picture.affine, out)
    volume = abs(np.linalg.det(picture.affine[:3, :3])) / 1000
    for value in range(1, int(labels.max()) + 1):
        voxels = int((labels == value).sum())
        _say(f"label {value}: {voxels} voxels, {voxels * volume:.2f} ml")
    if not labels.any():
        _say("Nothing was found there. Draw the box closer around the object.", "yellow")
    _say(f"wrote {out}")


@app.command()
def info(conf: Conf = None) -> None:
    """Show the methods, what each needs, and every --conf key of the server."""
    import torch

    from segmed.methods import METHODS
    from segmed.sam.precision import cpu_has_bf16
    from segmed.server.engine import Engine
    from segmed.server.settings import ServerSettings
    from segmed.training.registry import Registry

    out = Console()
    out.print(f"SegMed {segmed.__version__}")
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    out.print(f"devices: {', '.join([*names, 'CPU (bf16)' if cpu_has_bf16() else 'CPU'])}")
    methods = Table("method", "what it does", "needs")
    for method in METHODS.values():
        methods.add_row(method.name, method.title, _needs(method))
    out.print(methods)
    keys = Table("--conf", "meaning")
    for key, meaning in ServerSettings.KEYS.items():
        keys.add_row(key, meaning)
    out.print(keys)
    if conf:
        try:
            if wrong := [pair for pair in conf if "=" not in pair]:
                raise ValueError(f"--conf {wrong[0]!r} is not understood. Give KEY=VALUE.")
            settings = ServerSettings.from_conf(dict(pair.split("=", 1) for pair in conf))
        except (ValueError, FileNotFoundError) as error:
            _say(str(error), "red")
            raise typer.Exit(2) from error
        engine = Engine(settings, Registry(settings.registry or models.REGISTRY))
        names = [name for method in engine.offered() for name in engine.names(method)]
        out.print(f"this server would offer: {', '.join(names)}")


def _needs(method: Method) -> str:
    if method.weights:
        return "nothing, its weights come along"
    if method.build is None:
        return f"training: segmed train --method {method.name} --data … (or Train in the viewer)"
    return "--conf backbone …" if method.needs_backbone else "nothing"


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    studies: Annotated[str, typer.Option(help="Folder of images, or a DICOMweb URL; a demo study if not given.")] = "",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 are open to your network.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Start the server for 3D Slicer and OHIF.

    `--conf KEY VALUE`, repeatable, sets what `segmed info` lists, for instance `--conf models medsam,sam
    --conf backbone medsam_vit_b.pth`.
    """
    from segmed.server.serve import serve as start

    try:
        start(APP_DIR, studies, host, port, _conf_pairs(context.args))
    except (ValueError, FileNotFoundError) as error:
        _say(str(error), "red")
        raise typer.Exit(2) from error


@app.command()
def phantom(
    sheet: Annotated[Path, typer.Option(help="PNG to write.")],
    seed: Annotated[int, typer.Option(help="Of the samples; the same seed draws the same ones.")] = 0,
    rows: Annotated[int, typer.Option(help="Rows of pictures.")] = 6,
    columns: Annotated[int, typer.Option(help="Columns of pictures.")] = 8,
) -> None:
    """Show what the default model is trained on: drawn pictures with their targets outlined."""
    try:
        if not sheet.parent.is_dir():
            raise FileNotFoundError(f"The folder {sheet.parent} does not exist. Make it first.")
        from segmed.data.phantom.sheet import contact_sheet

        with console.status("drawing"):
            contact_sheet(sheet, seed, rows, columns)
    except (ValueError, OSError) as error:
        _say(str(error), "red")
        raise typer.Exit(2) from error
    _say(f"wrote {sheet}")


def _conf_pairs(args: list[str]) -> dict[str, str]:
    """`--conf K V` takes two words, as in MONAI Label's own command."""
    pairs: dict[str, str] = {}
    rest = list(args)
    while rest:
        if rest[0] not in ("--conf", "-c") or len(rest) < 3:
            raise ValueError(f"{' '.join(rest)[:80]!r} is not understood. Settings are given as --conf KEY VALUE.")
        pairs[rest[1]], rest = rest[2], rest[3:]
    return pairs


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch comes without CUDA
        raise ValueError(f"There is no device {device!r} here. Use cpu, or leave --device out.") from error


def _say(text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False)


def _numbers(text: str, fewest: int, most: int, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        values = []
    if len(values) not in (fewest, most):
        count = f"{fewest} or {most}" if fewest != most else f"{most}"
        raise ValueError(f"{option} {text!r} must be {count} numbers with commas between them, in voxels.")
    return values


def _inside(point: list[float], roi: list[float] | None) -> bool:
    if roi is None:
        return True
    return all(min(roi[2 * a : 2 * a + 2]) <= v <= max(roi[2 * a : 2 * a + 2]) for a, v in enumerate(point))


def main() -> None:
    """Entry point of the `segmed` command."""
    app()


if __name__ == "__main__":
    main()

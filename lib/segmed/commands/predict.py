"""`segmed predict`: one image, without a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from segmed.commands.models import REGISTRY

if TYPE_CHECKING:  # numpy and torch are imported late, so that --help answers at once
    import numpy as np

    from segmed.imaging.picture import Picture
    from segmed.methods.predictor import Predictor

console = Console(stderr=True)
ImageFile = Annotated[Path, typer.Argument(help="NIfTI, NRRD, PNG, JPEG, TIFF, or a folder of one DICOM series.")]
Backbone = Annotated[
    str, typer.Option(help="SAM weights: name of `segmed weights list`, folder, .pth file, or Hugging Face id.")
]
Window = Annotated[str, typer.Option(help="Intensity window, such as auto or ct-lung.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; the GPU if there is one.")]
Precision = Annotated[str, typer.Option(help="Of the image encoder: auto, bf16 or fp32.")]
Models = Annotated[Path, typer.Option(help="Folder of trained models; the served version answers.")]


def predict(
    image: ImageFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Mask to write: .nii.gz, .nrrd, .seg.nrrd or .png.")],
    box: Annotated[
        list[str] | None,
        typer.Option(help="Box in voxels: i0,i1,j0,j1,k0,k1 (i0,i1,j0,j1 for 2-D images). Repeat for more objects."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="Click into the object, in voxels: i,j,k. Repeatable.")
    ] = None,
    not_point: Annotated[list[str] | None, typer.Option(help="Click beside the object: i,j,k. Repeatable.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A previous mask on any grid, to be refined.")] = None,
    scribbles: Annotated[
        Path | None, typer.Option(help="Label map on any grid: 1 scribbled on the object, 2 beside it.")
    ] = None,
    model: Annotated[str, typer.Option(help="Method; add _3d to fill the volume instead of the slice.")] = "",
    backbone: Backbone = "",
    window: Window = "auto",
    device: Device = "",
    precision: Precision = "auto",
    finish: Annotated[str, typer.Option(help="Done to each mask: outline, crf or level set.")] = "",
    denoise: Annotated[str, typer.Option(help="gaussian, or a file that `segmed denoiser` wrote.")] = "",
    registry: Models = REGISTRY,
) -> None:
    """Segment one image without a server: from boxes and clicks, or by a model that needs none.

    Several boxes give labels 1, 2, … in their order; clicks belong to the box around them, or to the only object.

    Example: `segmed predict ct.nii.gz --box 40,120,60,140,30,30 --model medsam_3d --backbone medsam_vit_b.pth
    -o liver.nii.gz`
    """
    try:
        check_out(out)
        found = _predict(
            image,
            box or [],
            point or [],
            not_point or [],
            mask,
            scribbles,
            _Options(model, backbone, window, device, precision, finish, denoise, registry),
        )
        _write(out, image, *found)
    except (ValueError, OSError) as error:
        say(str(error), "red")
        raise typer.Exit(2) from error


@dataclass(frozen=True)
class _Options:
    model: str
    backbone: str
    window: str
    device: str
    precision: str
    finish: str
    denoise: str
    registry: Path


def _predict(
    image: Path,
    boxes: list[str],
    points: list[str],
    not_points: list[str],
    mask: Path | None,
    scribbles: Path | None,
    options: _Options,
) -> tuple[np.ndarray, Picture, list[str]]:
    import numpy as np

    from segmed.imaging.denoised import gaussian
    from segmed.imaging.masks import stack_slices
    from segmed.imaging.picture import open_picture
    from segmed.imaging.prompts import parse_prompt
    from segmed.methods.dncnn import load_dncnn
    from segmed.methods.predictor import Masks
    from segmed.methods.refinement import REFINEMENTS

    if options.finish and options.finish not in REFINEMENTS:
        raise ValueError(f"--finish {options.finish!r} must be one of {', '.join(REFINEMENTS)}.")
    model = options.model or ("medsam" if options.backbone else "segmed")
    with console.status(f"reading {image.name}"):
        picture = open_picture(image, options.window)
        if options.denoise:
            clean = gaussian() if options.denoise == "gaussian" else load_dncnn(Path(options.denoise))
            picture = clean(picture)
        previous = _previous(mask, image, picture) if mask else None
        strokes = _strokes(scribbles, image, picture, len(boxes)) if scribbles else None
    predictor, automatic = load_predictor(model, options.backbone, options.device, options.precision, options.registry)
    if automatic:
        if boxes or points or not_points or mask or scribbles:
            raise ValueError(f"The model {model!r} takes no prompts. Leave them out, or take {model}_prompt.")
        with console.status("labelling"):
            found = predictor.segment_classes(picture)
        for value, name in enumerate(predictor.segmenter.labels, start=1):
            say(f"label {value} is {name}")
        return found, picture, list(predictor.segmenter.labels)
    refine, through = REFINEMENTS.get(options.finish), model.endswith("_3d")
    flat = picture.shape[2] == 1
    rois = [_numbers(b, 4 if flat else 6, 6, "--box") for b in boxes]
    rois = [roi if len(roi) == 6 else [*roi, 0, 0] for roi in rois]
    fore = [_numbers(p, 2 if flat else 3, 3, "--point") for p in points]
    back = [_numbers(p, 2 if flat else 3, 3, "--not-point") for p in not_points]
    if len(rois) > 255:
        raise ValueError(f"{len(rois)} boxes are too many for one mask, which holds 255 labels. Split them.")
    if len(rois) > 1 and (stray := [p for p in fore if not any(_inside(p, roi) for roi in rois)]):
        say(f"{len(stray)} of the clicks lie in none of the boxes and are ignored.", "yellow")
    labels = np.zeros(picture.shape, np.uint8)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        prompts, asked = [], [*rois, *([] if rois else [None])]
        for roi in asked:
            mine = fore if len(rois) < 2 else [p for p in fore if _inside(p, roi)]
            prompt, warnings = parse_prompt(picture.shape, roi, mine, back, previous, strokes)
            prompts.append(prompt)
            for warning in warnings:
                say(warning, "yellow")
        # a model with a memory looks at a slice once for all objects
        together = through and predictor.segmenter.has_memory
        masks: list[Masks] = []
        for group in [prompts] if together else [[prompt] for prompt in prompts]:
            name = f"object {len(masks) + 1}" if len(group) == 1 else f"{len(group)} objects"
            task = bar.add_task(f"{name}, slices", total=None)

            def advance(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            masks += (
                predictor.segment_objects(picture, group, advance, refine)
                if through
                else [predictor.segment_slices(picture, prompt, advance, refine) for prompt in group]
            )
            done = max(int(bar.tasks[task].completed), 1)
            bar.update(task, total=done, completed=done)
    for value, one in enumerate(masks, start=1):
        labels[(stack_slices(one, picture.shape) > 0) & (labels == 0)] = value
    return labels, picture, []


def _previous(mask: Path, image: Path, picture: Picture) -> np.ndarray:
    """(I, J, K) boolean: a mask on the grid of the image, by world coordinates.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it cannot be read, or does not lie on the image.
    """
    import numpy as np

    from segmed.imaging.grid import image_grid, read_grid, read_labels

    found = read_labels(mask, image_grid(image, picture.shape, picture.affine)) > 0
    own = read_grid(mask, labels=True)
    there = 1.0 if own.affine is None else abs(np.linalg.det(own.affine[:3, :3])) * np.prod(own.shape)
    if not found.any() or (own.affine is not None and there < abs(np.linalg.det(picture.affine[:3, :3]))):
        raise ValueError(
            f"{mask.name} does not lie on the image: nothing of it is left there, or less than one voxel. Give a mask "
            "of this image."
        )
    return np.asarray(found)


def _strokes(file: Path, image: Path, picture: Picture, boxes: int) -> dict[int, np.ndarray]:
    """The scribbles of a label map, by world coordinates, as a prompt takes them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, not on the image, or several boxes of which each would be an object.
    """
    from segmed.imaging.grid import image_grid, read_labels
    from segmed.imaging.scribbles import Scribbles

    if boxes > 1:
        raise ValueError(f"Scribbles belong to one object, not to {boxes} boxes. Give one box, or none.")
    labels = read_labels(file, image_grid(image, picture.shape, picture.affine))
    return Scribbles.from_labels(labels, 1, 2).maps()


def check_out(out: Path) -> None:
    """Refuse a file that no mask can be written to, before anything is computed.

    Raises:
        ValueError: a folder, a format that is not known, or another table in the place of that of names and colours.
        FileNotFoundError: its folder is not there.
    """
    from segmed.imaging.masks import mask_extension
    from segmed.imaging.sidecar import check_sidecar

    if mask_extension(str(out)).startswith(".nii"):
        check_sidecar(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder. Give the name of a file.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"The folder {out.parent} does not exist. Make it first.")


def load_predictor(model: str, backbone: str, device: str, precision: str, registry: Path) -> tuple[Predictor, bool]:
    """The predictor of a model as the viewers name them, and whether it labels without prompts.

    Args:
        model: name.
        backbone: SAM weights, "" for those of the method.
        device: such as `cpu`; "" takes the GPU if there is one.
        precision: of the encoder.
        registry: folder of trained models.

    Raises:
        ValueError: no such model or device, or one that has not been trained.
        FileNotFoundError: weights are not there.
    """
    import torch

    from segmed.imaging.store import ByteBoundedStore
    from segmed.methods import METHODS
    from segmed.methods.loading import BackboneConfig, Loader, find_method
    from segmed.methods.predictor import Predictor
    from segmed.sam.weights import EMBEDDED
    from segmed.training.registry import Registry

    offered = {name: method for method in METHODS.values() for name in method.offered_as()}
    method = offered.get(model) or find_method(model.removesuffix("_3d"))
    if method.detects and model == method.name:
        raise ValueError(f"{model!r} gives boxes and no mask. Take the model 'auto', which outlines them.")
    automatic = method.detects or (method.automatic and model == method.name)
    device = device or ("cuda" if torch.cuda.is_available() and method.needs_backbone else "cpu")
    _check_device(device)
    version = Registry(registry).served(method.name)
    if version is None and method.build is None:
        raise ValueError(
            f"{method.name!r} has not been trained, so there is nothing to predict with. Train it with `segmed train "
            f"--method {method.name} …`, or name the folder of your models by --registry."
        )
    base = BackboneConfig(backbone, precision=precision)
    if not base.source and method.build is None and method.needs_backbone and not method.weights:
        base = BackboneConfig(EMBEDDED, precision=precision)
    with console.status(f"loading {method.name}"):
        trained = version.folder if version else None
        segmenter, warning = Loader().get_or_fallback(method.name, base, device, trained)
    if warning:
        say(warning, "yellow")
    if automatic and not segmenter.labels:
        raise ValueError(f"This version of {model!r} was trained for boxes. Take {model}_prompt.")
    return Predictor(segmenter, ByteBoundedStore(2**30), batch=4 if device != "cpu" else 1), automatic


def _write(out: Path, image: Path, labels: np.ndarray, picture: Picture, names: list[str]) -> None:
    import numpy as np

    from segmed.imaging.label_writing import name_values, write_labels

    called = names or [f"object {value}" for value in range(1, int(labels.max()) + 1)]
    write_labels(name_values(labels, called), picture.affine, out, like=image)
    volume = abs(np.linalg.det(picture.affine[:3, :3])) / 1000
    for value in range(1, int(labels.max()) + 1):
        voxels = int((labels == value).sum())
        say(f"label {value}: {voxels} voxels, {voxels * volume:.2f} ml")
    if not labels.any():
        say("Nothing was found there. Draw the box closer around the object.", "yellow")
    say(f"wrote {out}")


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch comes without CUDA
        raise ValueError(f"There is no device {device!r} here. Use cpu, or leave --device out.") from error


def say(text: str, style: str = "") -> None:
    """Tell the user, on the error stream."""
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

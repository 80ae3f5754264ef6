"""`segmed predict`: one image, without a server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmed.commands.models import REGISTRY
from segmed.commands.prediction.following import Following, Stopped
from segmed.commands.prediction.inputs import (
    boxes_of_file,
    check_out,
    previous_mask,
    scribble_maps,
    write_prediction_provenance,
)
from segmed.commands.prediction.loading import check_model, default_model, load_model
from segmed.commands.prediction.options import (
    Backbone,
    Device,
    ImageFile,
    Models,
    Precision,
    Window,
    console,
    say,
)
from segmed.methods.base.method import REFINEMENT_NAMES

if TYPE_CHECKING:  # numpy and torch are imported late, so that --help answers at once
    import numpy as np

    from segmed.imaging.picture import Picture
    from segmed.imaging.prompts import Prompt
    from segmed.inference.predictor import Predictor
    from segmed.inference.progress import Masks, Progress
    from segmed.registry.predictors import LoadedModel


def predict(
    image: ImageFile,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Mask to write: .nii.gz, .nrrd, .seg.nrrd or .png.")
    ],
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="Box in voxels: i0,i1,j0,j1,k0,k1 (i0,i1,j0,j1 for 2-D images). Repeat for more objects."
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Boxes of a 2-D image from a file: .txt of YOLO or .json of COCO."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="Click into the object, in voxels: i,j,k. Repeatable.")
    ] = None,
    not_point: Annotated[
        list[str] | None, typer.Option(help="Click beside the object: i,j,k. Repeatable.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="A previous mask on any grid, to be refined.")] = None,
    scribbles: Annotated[
        Path | None, typer.Option(help="Label map on any grid: 1 scribbled on the object, 2 beside it.")
    ] = None,
    model: Annotated[str, typer.Option(help="Method; add _3d to fill the volume instead of the slice.")] = "",
    backbone: Backbone = "",
    window: Window = "auto",
    device: Device = "",
    precision: Precision = "auto",
    refinement: Annotated[str, typer.Option(help="Refinement of each mask: outline, crf or level set.")] = "",
    denoise: Annotated[str, typer.Option(help="gaussian, or a file that `segmed denoiser` wrote.")] = "",
    registry: Models = REGISTRY,
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="Ctrl+C writes what was found until then.")
    ] = False,
) -> None:
    """Segment one image without a server: from boxes and clicks, or by a model that needs none.

    Several boxes give labels 1, 2, … in their order; clicks belong to the box around them, or to the only
    object.

    Example: `segmed predict ct.nii.gz --box 40,120,60,140,30,30 --model medsam_3d --backbone medsam_vit_b.pth
    -o liver.nii.gz`
    """
    try:
        for text in box or []:
            _numbers(text, 4, 6, "--box")
        for text in [*(point or []), *(not_point or [])]:
            _numbers(text, 2, 3, "--point" if text in (point or []) else "--not-point")
        if refinement and refinement not in REFINEMENT_NAMES:
            raise ValueError(f"--refinement {refinement!r} must be one of {', '.join(REFINEMENT_NAMES)}.")
        check_model(model, backbone, precision)
        check_out(out, image, mask, scribbles, boxes, provenance=True)
        options = _Options(
            model, backbone, window, device, precision, refinement, denoise, registry, keep_partial
        )
        picture = _opened(image, options)
        drawn = [*(box or []), *boxes_of_file(boxes, image, picture)]
        prompts = drawn, point or [], not_point or [], mask, scribbles
        labels, names, loaded = _predict(image, picture, *prompts, options)
        _write(out, image, labels, picture, names)
        write_prediction_provenance(
            out,
            image,
            picture,
            loaded,
            model or default_model(backbone),
            dict(zip(_PROMPTS, prompts, strict=True)),
            {
                "refinement": refinement,
                "denoise": denoise,
                "device": device,
                "precision": precision,
                "backbone": backbone,
            },
        )
    except Stopped as stopped:
        say("Stopped; nothing was written. With --keep-partial, Ctrl+C writes what was found.", "yellow")
        raise typer.Exit(130) from stopped
    except (ValueError, OSError) as error:
        say(str(error), "red")
        raise typer.Exit(2) from error


_PROMPTS = ("boxes", "points", "not_points", "mask", "scribbles")


@dataclass(frozen=True)
class _Options:
    model: str
    backbone: str
    window: str
    device: str
    precision: str
    refinement: str
    denoise: str
    registry: Path
    keep_partial: bool


def _opened(image: Path, options: _Options) -> Picture:
    from segmed.denoising.dncnn import load_dncnn
    from segmed.denoising.pictures import gaussian
    from segmed.imaging.picture import open_picture

    with console.status(f"reading {image.name}"):
        picture = open_picture(image, options.window)
        if not options.denoise:
            return picture
        clean = gaussian() if options.denoise == "gaussian" else load_dncnn(Path(options.denoise))
        return clean(picture)


def _predict(
    image: Path,
    picture: Picture,
    boxes: list[str],
    points: list[str],
    not_points: list[str],
    mask: Path | None,
    scribbles: Path | None,
    options: _Options,
) -> tuple[np.ndarray, list[str], LoadedModel]:
    import numpy as np

    from segmed.imaging.labels.masks import stack_slices
    from segmed.imaging.prompts import parse_prompt

    model = options.model or default_model(options.backbone)
    previous = previous_mask(mask, image, picture) if mask else None
    strokes = scribble_maps(scribbles, image, picture, len(boxes)) if scribbles else None
    loaded = load_model(model, options.backbone, options.device, options.precision, options.registry)
    predictor = loaded.predictor
    if loaded.automatic:
        if boxes or points or not_points or mask or scribbles:
            raise ValueError(f"The model {model!r} takes no prompts. Leave them out, or take {model}_prompt.")
        following = Following(options.keep_partial)
        with following.shown():
            found = following.run(
                "labels",
                lambda advance: predictor.segment_classes(picture, advance),
                lambda masks: stack_slices(masks, picture.shape),
            )
        for value, name in enumerate(predictor.segmenter.labels, start=1):
            say(f"label {value} is {name}")
        return found, list(predictor.segmenter.labels), loaded
    flat = picture.shape[2] == 1
    rois = [_numbers(b, 4 if flat else 6, 6, "--box") for b in boxes]
    rois = [roi if len(roi) == 6 else [*roi, 0, 0] for roi in rois]
    fore = [_numbers(p, 2 if flat else 3, 3, "--point") for p in points]
    back = [_numbers(p, 2 if flat else 3, 3, "--not-point") for p in not_points]
    if len(rois) > 255:
        raise ValueError(f"{len(rois)} boxes are too many for one mask, which holds 255 labels. Split them.")
    if len(rois) > 1 and (stray := [p for p in fore if not any(_inside(p, roi) for roi in rois)]):
        say(f"{len(stray)} of the clicks lie in none of the boxes and are ignored.", "yellow")
    prompts, asked = [], [*rois, *([] if rois else [None])]
    for roi in asked:
        mine = fore if len(rois) < 2 else [p for p in fore if _inside(p, roi)]
        prompt, warnings = parse_prompt(picture.shape, roi, mine, back, previous, strokes)
        prompts.append(prompt)
        for warning in warnings:
            say(warning, "yellow")
    masks = _segmented(predictor, picture, prompts, model.endswith("_3d"), options)
    labels = np.zeros(picture.shape, np.uint8)
    for value, one in enumerate(masks, start=1):
        labels[(stack_slices(one, picture.shape) > 0) & (labels == 0)] = value
    return labels, [], loaded


def _segmented(
    predictor: Predictor, picture: Picture, prompts: list[Prompt], through: bool, options: _Options
) -> list[Masks]:
    """Masks (H, W) by slice for each prompt, through the volume or on the prompted slices."""
    from segmed.inference.refinement.refinement import REFINEMENTS

    refinement = REFINEMENTS.get(options.refinement)
    # a model with a memory looks at a slice once for all objects
    together = through and predictor.segmenter.has_memory
    masks: list[Masks] = []

    def segment(group: list[Prompt], advance: Progress) -> list[Masks]:
        if through:
            return predictor.segment_objects(picture, group, advance, refinement)
        return [predictor.segment_slices(picture, prompt, advance, refinement) for prompt in group]

    following = Following(options.keep_partial)
    with following.shown():
        for group in [prompts] if together else [[prompt] for prompt in prompts]:
            name = f"object {len(masks) + 1}" if len(group) == 1 else f"{len(group)} objects"
            masks += following.run(name, partial(segment, group), lambda found: [found])
            if following.stopped:
                break
    return masks


def _write(out: Path, image: Path, labels: np.ndarray, picture: Picture, names: list[str]) -> None:
    import numpy as np

    from segmed.imaging.labels.writing import name_values, write_labels

    called = names or [f"object {value}" for value in range(1, int(labels.max()) + 1)]
    write_labels(name_values(labels, called), picture.affine, out, like=image)
    volume = abs(np.linalg.det(picture.affine[:3, :3])) / 1000
    for value in range(1, int(labels.max()) + 1):
        voxels = int((labels == value).sum())
        say(f"label {value}: {voxels} voxels, {voxels * volume:.2f} ml")
    if not labels.any():
        say("Nothing was found there. Draw the box closer around the object.", "yellow")
    say(f"wrote {out}")


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

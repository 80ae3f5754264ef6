"""Selection of training objects: balanced over modality, source, label and size, partly synthetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

from segmed.data.datasets.training_pack import PackImage, TrainingPack
from segmed.data.synthetic.sample import PhantomConfig, generate
from segmed.data.synthetic.visibility import visibility
from segmed.pretraining.tissues import tissue

# Relative frequency of modalities; those that radiologists segment most come first.
MODALITIES = {
    "ct": 4.0,
    "mr": 4.5,
    "us": 2.0,
    "xray": 1.5,
    "endoscopy": 1.2,
    "dermoscopy": 0.8,
    "fundus": 0.8,
    "microscopy": 1.3,
    "histology": 1.2,
    "oct": 0.4,
    "pet": 0.5,
    "em": 0.5,
}
# Factors for sources of vessel trees and scattered lesions: too many of them teach to prefer these inside any
# box.
CAPPED = {
    "lung-av": 0.25,
    "msd-hepaticvessel": 0.3,
    "fives": 0.15,
    "hrf": 0.15,
    "idrid": 0.6,
    "hvdropdb-ridge": 0.4,
}
_SMALLEST = 40  # smallest area of an object in px
_PICTURES, _DRAWN, _OBJECTS = (
    6,
    176,
    4,
)  # synthetic images generated together, their side in px, objects per image
_DEEPEST, _COMPACT = 5.0, 0.5  # least depth in px and share of its box of an object that can be hollowed
_CONTRAST, _TRIES = (
    30.0,
    6,
)  # least difference of core and wall in grey levels, and attempts to find such a colour
_SUPERPIXELS = 256  # longer side in px at which superpixels are computed


@dataclass(frozen=True)
class Shown:
    """An object to segment.

    Attributes:
        image: The image, (H, W) or (H, W, 3), uint8.
        mask: The mask of the object (H, W), boolean and not empty.
        kind: `real`, `synthetic`, `superpixel` or `tissue`.
    """

    image: np.ndarray
    mask: np.ndarray
    kind: str


@dataclass(frozen=True)
class ObjectConfig:
    """The mixture of training objects.

    Attributes:
        synthetic_share: Share of objects from procedural phantoms.
        superpixel_share: Share of objects that are superpixels of real images, as in ScribblePrompt (Wong et
            al., ECCV 2024): they teach that the prompt defines the object.
        tissue_share: Share of objects that are tissues of real images, see `tissues.tissue`.
        part_share: Share of labels with several connected parts of which one part becomes the object.
        hollow_share: Share of compact real objects whose core is painted over and excluded from the mask,
            because walls and rings are rare among labels.
        phantoms: Settings of the procedural phantoms.
    """

    synthetic_share: float = 0.25
    superpixel_share: float = 0.06
    tissue_share: float = 0.12
    part_share: float = 0.6
    hollow_share: float = 0.1
    phantoms: PhantomConfig = field(default_factory=PhantomConfig)

    def __post_init__(self) -> None:
        for name in ("synthetic_share", "superpixel_share", "tissue_share", "part_share", "hollow_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed are shares from 0 to 1.")


class ObjectSource:
    """A reproducible sequence of objects: the n-th one is always the same.

    Args:
        pack: Labelled images, or None for synthetic ones only.
        config: The mixture of objects.
        seed: Seed of all random draws.
    """

    def __init__(self, pack: TrainingPack | None, config: ObjectConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or ObjectConfig(), seed
        self.pack = pack
        sources = {} if pack is None else pack.by_source()
        self.sources = sources
        weights = {name: np.sqrt(len(images)) * CAPPED.get(name, 1.0) for name, images in sources.items()}
        modality = {name: images[0].modality for name, images in sources.items()}
        totals = {m: sum(w for n, w in weights.items() if modality[n] == m) for m in set(modality.values())}
        self.names = sorted(sources)
        chance = np.array(
            [weights[n] / totals[modality[n]] * MODALITIES.get(modality[n], 1.0) for n in self.names]
        )
        self.chances = chance / chance.sum() if len(chance) else chance

    def object(self, n: int) -> Shown:
        """The n-th object."""
        rng = np.random.default_rng((self.seed, n))
        kind = rng.random()
        if not self.names or kind < self.config.synthetic_share:
            return self._synthetic(n, rng)
        image = self._image(rng)
        kind -= self.config.synthetic_share
        if kind < self.config.superpixel_share:
            return _superpixel(image, rng)
        if kind < self.config.superpixel_share + self.config.tissue_share:
            mask = tissue(image, rng)
            if mask is not None:
                return Shown(image.image, mask, "tissue")
        shown = self._real(image, rng)
        return hollowed(shown, rng) if rng.random() < self.config.hollow_share else shown

    def _image(self, rng: np.random.Generator) -> PackImage:
        images = self.sources[self.names[rng.choice(len(self.names), p=self.chances)]]
        return images[rng.integers(len(images))]

    def _real(self, image: PackImage, rng: np.random.Generator) -> Shown:
        """A label of an image, or one of its connected parts; larger ones are preferred half of the time."""
        values = image.values
        if image.has_instances and len(values) > 3:
            values = [values[n] for n in rng.permutation(len(values))[:3]]
            value = (
                max(values, key=lambda v: int((image.labels == v).sum())) if rng.random() < 0.5 else values[0]
            )
        else:
            value = values[rng.integers(len(values))]
        mask = image.labels == value
        split = image.entry["labels"] != "instances" and image.has_instances
        if split or (image.entry["labels"] != "instances" and rng.random() < self.config.part_share):
            parts = [
                n
                for n, (rows, columns) in enumerate(image.parts(value))
                if (rows.stop - rows.start) * (columns.stop - columns.start) >= _SMALLEST
            ]
            if parts:
                # Parts are numbered by size, the largest first.
                few = parts[: max(1, len(parts) // 4)] if rng.random() < 0.5 else parts
                mask = image.part_mask(value, few[rng.integers(len(few))])
        if mask.sum() < _SMALLEST:
            mask = image.labels == max(image.values, key=lambda v: int((image.labels == v).sum()))
        return Shown(image.image, mask, "real")

    def _synthetic(self, n: int, rng: np.random.Generator) -> Shown:
        # Generating costs as much as training, so that each object is used about twice, in different windows.
        often = _PICTURES * _OBJECTS * 2 / max(self.config.synthetic_share, 0.05)
        images, masks = _drawn(self.config.phantoms, self.seed * 1_000_003 + int(n / often))
        place = int(rng.integers(len(masks)))
        return Shown(images[place], masks[place], "synthetic")


def hollowed(shown: Shown, rng: np.random.Generator) -> Shown:
    """Turn an object into a wall around a cavity, filled by grey or colour from its image.

    The core contains the pixels deeper than a random share of the largest depth. Objects that are not compact
    are returned unchanged.
    """
    y, x = np.nonzero(shown.mask)
    y0, y1, x0, x1 = y.min(), y.max() + 1, x.min(), x.max() + 1
    part = shown.mask[y0:y1, x0:x1]
    depth = cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    if depth.max() < _DEEPEST or len(y) < _COMPACT * part.size:
        return shown
    core = depth > depth.max() * rng.uniform(0.2, 0.55)
    image = shown.image.copy()
    window: Any = image[y0:y1, x0:x1].astype(np.float32)
    inside = window[part].mean(0)
    colour = image[rng.integers(image.shape[0]), rng.integers(image.shape[1])].astype(np.float32)
    for _ in range(_TRIES):
        if np.abs(colour - inside).max() >= _CONTRAST:
            break
        colour = image[rng.integers(image.shape[0]), rng.integers(image.shape[1])].astype(np.float32)
    else:
        colour = np.where(inside > 128, inside - rng.uniform(30, 120), inside + rng.uniform(30, 120))
    soft: Any = cv2.blur(core.astype(np.float32), (3, 3))
    soft = soft if image.ndim == 2 else soft[..., None]
    # Texture of the covered core, so that it is as rough as the wall.
    grain = window - cv2.blur(window, (7, 7))
    window = window * (1 - soft) + (colour + grain) * soft
    image[y0:y1, x0:x1] = window.clip(0, 255).round()
    mask = shown.mask.copy()
    mask[y0:y1, x0:x1] &= ~core
    return Shown(image, mask, shown.kind)


@lru_cache(maxsize=2)
def _drawn(config: PhantomConfig, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and masks of the objects of a few synthetic images, the most visible ones first."""
    drawn = generate(_PICTURES, _DRAWN, seed, "cpu", config)
    rng = np.random.default_rng(seed)
    preference = visibility(drawn.images, drawn.targets).clamp(max=2.0).numpy() + rng.random(
        drawn.valid.shape
    )
    preference = np.where(drawn.valid.numpy(), preference, -1)
    images, masks = [], []
    for b in range(_PICTURES):
        picture = (drawn.images[b].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        for k in np.argsort(-preference[b])[:_OBJECTS]:
            mask = drawn.targets[b, k].numpy()
            if preference[b, k] >= 0 and mask.sum() >= _SMALLEST // 2:
                images.append(picture)
                masks.append(mask)
    if not masks:
        return _drawn(config, seed + 1)
    return images, masks


def _superpixel(image: PackImage, rng: np.random.Generator) -> Shown:
    """A superpixel of an image (Felzenszwalb and Huttenlocher, IJCV 2004) as the object."""
    parts = _superpixels(image, int(rng.integers(2)))
    sizes = np.bincount(parts.ravel())
    fitting = np.flatnonzero((sizes >= 60) & (sizes < 0.4 * parts.size))
    if not len(fitting):
        return Shown(image.image, image.labels > 0, "real")
    small = parts == fitting[rng.integers(len(fitting))]
    height, width = image.labels.shape
    mask = cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return (
        Shown(image.image, mask, "superpixel") if mask.any() else Shown(image.image, image.labels > 0, "real")
    )


@lru_cache(maxsize=1500)
def _superpixels(image: PackImage, turn: int) -> np.ndarray:
    """The superpixels (h, w) of an image, int32, with a size that depends on the image and on `turn`."""
    scale = _SUPERPIXELS / max(image.labels.shape)
    small = image.image
    if scale < 1:
        small = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng((turn, int(image.labels.astype(np.int64).sum())))
    grain = float(rng.choice([30, 80, 150, 300, 500]))
    channel_axis = -1 if small.ndim == 3 else None
    return felzenszwalb(small, grain, 0.6, 40, channel_axis=channel_axis).astype(np.int32)

"""Label maps: clean-ups of those that a network made slice by slice, and the boxes of their pieces."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label as pieces
from skimage.measure import regionprops


def clean_labels(labels: np.ndarray, largest: bool = True, fill: bool = True) -> np.ndarray:
    """Keep one piece of each organ, and close its holes.

    Voxels that share a corner belong together. Only background becomes an organ: what lies inside of another
    organ, such as a tumour, stays what it is.

    Args:
        labels: Label map (I, J, K) of integers, 0 the background.
        largest: Whether all but the largest piece of each organ become background.
        fill: Whether background that one organ encloses becomes that organ.

    Returns:
        An array of the same shape and type; `labels` is left as it is.

    Raises:
        ValueError: `labels` is not a volume of integers.
    """
    from segmed.monai_parts import FillHoles, KeepLargestConnectedComponent  # seconds; boxes do without it

    if labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"The label map is {labels.ndim}-D {labels.dtype}; allowed is a 3-D array of whole numbers. "
            "Stack the slices along k and take the class of each voxel."
        )
    out = labels.copy()
    space = (
        out[:, :, 0] if out.shape[2] == 1 else out
    )  # in a volume every hole of a single slice would be open
    for label, box in enumerate(ndimage.find_objects(space), 1):
        if box is None:
            continue
        part = space[box]
        organ = (part == label).astype(np.uint8)[None]
        kept = np.asarray(KeepLargestConnectedComponent()(organ.copy())) if largest else organ
        part[(organ > kept)[0]] = 0
        if fill:
            whole = np.asarray(FillHoles()(kept.copy()))
            part[(whole > 0)[0] & (part == 0)] = label
    return out


def boxes_of_pieces(labels: np.ndarray, min_area: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A box around each 8-connected piece of each label.

    Args:
        labels: Label map (H, W) of integers, 0 the background.
        min_area: Area in px below which pieces are left out.

    Returns:
        Boxes (N, 4) as x0, y0, x1, y1 in px, of which the last two are the first column and row beyond; and
        labels (N,).
    """
    corners, kinds = [], []
    for value in np.unique(labels[labels > 0]):
        for piece in regionprops(pieces(labels == value, connectivity=2)):
            if piece.area >= min_area:
                y0, x0, y1, x1 = piece.bbox
                corners.append((x0, y0, x1, y1))
                kinds.append(int(value))
    return np.array(corners, np.float32).reshape(-1, 4), np.array(kinds, np.int64)

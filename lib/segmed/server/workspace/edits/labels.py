"""Changes of a user's labels as a whole: other names and colours, joining and deleting, each one step of the
history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from segmed.imaging.labels.segments import Colour
from segmed.server.workspace.edits.names import Naming, label_name
from segmed.server.workspace.patches import Patch
from segmed.server.workspace.workspace import Workspace


def rename_label(work: Workspace, name: str, new: str) -> list[Patch]:
    """Give a label another name; its voxels, value and colour stay.

    Raises:
        ValueError: There is no such label, or the new name is not allowed or taken.
    """
    own, wanted = _known(work, name), label_name(new)
    if wanted == own:
        return []
    if wanted in work.labels:
        raise ValueError(f"There is a label {wanted} already. Merge {own} into it, or take another name.")
    return work.change({}, naming=work.naming.renamed(own, wanted))


def recolour_label(work: Workspace, name: str, colour: Colour) -> list[Patch]:
    """Give a label another colour, which is stored with it.

    Raises:
        ValueError: There is no such label.
    """
    return work.change({}, naming=work.naming.coloured(_known(work, name), colour))


def delete_label(work: Workspace, name: str) -> list[Patch]:
    """Delete a label with all of its voxels, also those that lie beneath other labels in the file.

    Raises:
        ValueError: There is no such label.
    """
    own = _known(work, name)
    return work.change(_with_value(work, own, 0), naming=work.naming.without(own))


def merge_label(work: Workspace, name: str, into: str) -> list[Patch]:
    """Let the voxels of a label belong to another one, and delete its name.

    Voxels that lie beneath other labels in the file are not merged but deleted.

    Raises:
        ValueError: There are no such labels, or they are the same.
    """
    own, other = _known(work, name), _known(work, into)
    if own == other:
        raise ValueError(f"The label {own} cannot be merged into itself. Choose another one.")
    return work.change(_with_value(work, own, work.labels[other]), naming=work.naming.without(own))


def add_objects(
    work: Workspace,
    objects: Mapping[str, Sequence[Patch]],
    overwrite: bool = False,
    locked: Iterable[str] = (),
) -> tuple[list[Patch], dict[str, int]]:
    """Add the masks of several objects, each under its label, in one step of the history.

    Args:
        work: Workspace to change.
        objects: Masks by label name; any value above 0 belongs to the object. Later ones lie on top.
        overwrite: Whether the objects take voxels of labels that were there before.
        locked: Names of labels whose voxels stay even so.

    Returns:
        The changed rectangles, and the number of voxels that each object has got.

    Raises:
        ValueError: A name is not allowed, or no value is free.
    """
    naming: Naming = work.naming
    slices: dict[int, np.ndarray] = {}
    free: dict[int, np.ndarray] = {}  # where objects may lie, by slice
    kept = [work.labels[name] for name in locked if name in work.labels]
    values = {}
    for given, patches in objects.items():
        name = label_name(given)
        if name not in naming.labels:
            naming = naming.with_label(name, work.free_value(naming.labels))
        values[name] = naming.labels[name]
        for patch in patches:
            part = slices.setdefault(patch.k, work.slice(patch.k))
            free.setdefault(patch.k, ~np.isin(part, kept) if overwrite else part == 0)
            part[patch.full(work.shape) & free[patch.k]] = values[name]
    counts = sum((np.bincount(part.ravel(), minlength=256) for part in slices.values()), np.zeros(256, int))
    return work.change(slices, naming=naming), {name: int(counts[v]) for name, v in values.items()}


def keep_locked(
    work: Workspace, locked: Iterable[str], before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]
) -> tuple[dict[int, np.ndarray], list[int]]:
    """Give locked labels back what a new object would take from them.

    Args:
        work: Workspace, which is not changed.
        locked: Names of the labels whose voxels stay; unknown names are left out.
        before: Slices (H, W) without the object.
        after: The same slices with the object.

    Returns:
        The slices with the object beside the locked labels, and the values of these.
    """
    values = [work.labels[name] for name in locked if name in work.labels]
    stays = {k: np.isin(part, values) for k, part in before.items()}
    return {
        k: np.where(stays[k], before[k], part) if k in stays else part for k, part in after.items()
    }, values


def refuse_locked(work: Workspace, locked: Iterable[str], touched: Iterable[int]) -> None:
    """Refuse a change of labels that the user has locked.

    Args:
        work: Workspace, which is not changed.
        locked: Names of the locked labels; unknown names are left out.
        touched: Values of the labels that would lose or get voxels.

    Raises:
        ValueError: One of them is locked.
    """
    values = set(touched)
    for name in locked:
        if work.labels.get(name) in values:
            raise ValueError(f"{name} is locked, and nothing was changed. Unlock it first.")


def changed_values(work: Workspace, slices: Mapping[int, np.ndarray]) -> set[int]:
    """Values of the labels that lose or get voxels where slices (H, W) replace those of the workspace."""
    values: set[int] = set()
    for k, new in slices.items():
        old = work.slice(k)
        differs = old != new
        values |= {int(v) for v in np.unique([old[differs], new[differs]])}
    return values - {0}


def _known(work: Workspace, name: str) -> str:
    plain = label_name(name)
    if plain not in work.labels:
        raise ValueError(f"There is no label {plain}. Choose one of {', '.join(work.labels) or 'none yet'}.")
    return plain


def _with_value(work: Workspace, name: str, value: int) -> dict[int, np.ndarray]:
    """The slices on which a label has voxels, with another value in their place."""
    changed = {}
    for k in work.filled():
        part = work.slice(k)
        own = part == work.labels[name]
        if own.any():
            part[own] = value
            changed[k] = part
    return changed

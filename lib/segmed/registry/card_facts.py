"""What the card of an exported version says of its training: the data, the settings, and the measured scores.

Images are counted and not named, because their ids may tell who the patients are.
"""

from __future__ import annotations

from segmed.registry.gate import label_changes
from segmed.registry.model_version import VersionRecord

_SHOWN = 12  # digits of a fingerprint


def card_facts(record: VersionRecord) -> tuple[str, ...]:
    """The sections on training and scores, as lines of Markdown (Mitchell et al., Model Cards for Model
    Reporting, FAT* 2019).

    Args:
        record: Record of the version.
    """
    parts = ", ".join(f"{len(images)} {part}" for part, images in record.data.split.items())
    rows = [
        ("images", f"{len(record.data.images)} ({parts})" if parts else str(len(record.data.images))),
        ("fingerprint of images and labels", record.data.digest[:_SHOWN]),
        ("trained from", record.parent or "the base weights"),
        ("trained by", f"SegMed {record.code}" if record.code else ""),
        ("trained at", record.created),
        *((name, str(value)) for name, value in sorted(record.settings.items()) if not _is_place(value)),
    ]
    lines = ["## Training", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(text)} |" for name, text in rows if text]
    if not record.scores:
        return (*lines, "")
    lines += [
        "",
        "## Scores",
        "",
        "On the held-out cases; HD95 is the mean of the finite ones.",
        "",
    ]
    lines += ["| structure | cases | Dice | NSD at 2 mm | HD95, mm | missed |", f"|---|{5 * '---:|'}"]
    for one in label_changes(record.scores, record.scores):
        nsd = "" if one.nsd is None else f"{one.nsd:.3f}"
        hd95 = "" if one.hd95 is None else f"{one.hd95:.1f}"
        lines.append(f"| {_cell(one.label)} | {one.cases} | {one.dice:.3f} | {nsd} | {hd95} | {one.missed} |")
    if record.verdict:
        lines += ["", record.verdict.reason]
    return (*lines, "")


def _is_place(value: object) -> bool:
    """Whether a setting may be a path, which is nobody else's business."""
    return isinstance(value, str) and ("/" in value or "\\" in value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

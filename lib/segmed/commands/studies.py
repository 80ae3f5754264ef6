"""What a server would offer of a studies folder, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show_studies(root: Path, conf: Sequence[str]) -> None:
    """Print how many images a folder offers, and each thing that is left out with its reason.

    Args:
        root: the folder; nothing in it is changed.
        conf: settings of the server as KEY=VALUE, of which the modalities count.
    """
    from segmed.data.left_out import image_names, left_out_files
    from segmed.server.config.dicomweb_settings import DicomwebSettings
    from segmed.server.datastores.dicom_folder import DicomFolderStudies, is_dicom_folder

    out = Console()
    try:
        if not root.is_dir():
            raise FileNotFoundError(f"There is no folder {str(root)!r}. Give a folder of images.")
        if is_dicom_folder(root):
            store = DicomFolderStudies(root, DicomwebSettings.from_conf(split_conf(conf)).modalities)
            kind, count, left = "DICOM series", len(store.list_images()), store.left_out()
        else:
            listed = image_names(root)
            kind, count, left = "image files", len(listed), left_out_files(root, listed.values())
    except (ValueError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    out.print(f"{root}: {count} {kind}", markup=False, highlight=False, soft_wrap=True)
    if not left:
        out.print("nothing is left out")
        return
    table = Table("left out", "files", "why")
    for one in left:
        table.add_row(escape(one.name), str(one.count), escape(one.reason))
    out.print(table)


def split_conf(pairs: Sequence[str]) -> dict[str, str]:
    """Settings given as KEY=VALUE.

    Raises:
        ValueError: one without `=`.
    """
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"--conf {wrong[0]!r} is not understood. Give KEY=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)

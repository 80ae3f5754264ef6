"""`segmed labels`: former versions of the labels of a studies folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(help="Saved labels: former versions, and how to get them back.", no_args_is_help=True)

Image = Annotated[
    str, typer.Argument(help="Id of the image: its file name without the extension, or the series UID.")
]
StudiesFolder = Annotated[Path, typer.Option("--studies", help="Folder of studies that the server serves.")]
Tag = Annotated[str, typer.Option(help="Of the label.")]


@app.command()
def history(image: Image, studies: StudiesFolder, tag: Tag = "final") -> None:
    """List the former labels of an image, which were replaced or removed, the newest first."""
    with _opened(studies) as store:
        from segmed.server.datastores.label_history import history_of

        table = Table("version", "saved", "replaced or removed", "by", "labels", "bytes")
        for one in history_of(store).versions(image, tag):
            told = one.to_json()
            names = ", ".join(told["labels"])
            cells = told["version"], told["saved"], told["replaced"], told["by"], names, str(told["bytes"])
            table.add_row(*(escape(cell or "") for cell in cells))
        if not table.row_count:
            raise ValueError(
                f"No former label of {image!r} is kept. Labels are kept from the second saving on."
            )
        Console().print(table)


@app.command()
def restore(
    image: Image,
    version: Annotated[str, typer.Argument(help="As `segmed labels history` lists it.")],
    studies: StudiesFolder,
    tag: Tag = "final",
) -> None:
    """Save a former label again; the one that it replaces goes into the history itself."""
    with _opened(studies) as store:
        from segmed.server.datastores.label_history import bring_back

        bring_back(store, image, tag, version)
        Console(stderr=True).print(f"The label of {image} is again as it was before {version}.", markup=False)


@contextmanager
def _opened(studies: Path) -> Iterator[Any]:
    """The datastore of a folder; errors of the user end the command with a sentence."""
    try:
        if not studies.is_dir():
            raise FileNotFoundError(
                f"There is no folder {str(studies)!r}. Give the folder that the server serves."
            )
        from segmed.server.config.dicomweb_settings import DicomwebSettings
        from segmed.server.datastores.dicom_folder import DicomFolderStudies, is_dicom_folder
        from segmed.server.datastores.folder_datastore import FolderDatastore

        if is_dicom_folder(studies):
            yield DicomFolderStudies(studies, DicomwebSettings.from_conf({}).modalities)
        else:
            yield FolderDatastore.of_folder(studies, auto_reload=False)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error

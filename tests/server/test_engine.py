"""What requests share: an image that is shown and segmented is read once."""

from __future__ import annotations

from pathlib import Path

from segmed.imaging.picture import open_picture
from segmed.imaging.reading import read_volume
from segmed.registry.versions import Registry
from segmed.server.config.settings import ServerSettings
from segmed.server.engine import Engine


def test_an_image_is_read_once_for_viewer_and_model(phantom_file: Path, tmp_path: Path) -> None:
    engine = Engine(ServerSettings.from_conf({}), Registry(tmp_path / "models"))
    volume = engine.volume(phantom_file)
    assert (volume.array == read_volume(phantom_file).array).all()
    picture = engine.picture(phantom_file)
    assert engine.pictures.reads == 0
    assert (picture.array == open_picture(phantom_file).array).all()
    engine.picture(phantom_file, "ct-lung")
    assert engine.pictures.reads == 1

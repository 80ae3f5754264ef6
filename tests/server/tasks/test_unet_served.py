"""A baseline from the Train button to labels: offered once it is trained, by what its version can answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import nibabel as nib
import nrrd
import numpy as np
import pytest
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferType
from segmed.active.scoring.scorer import Scorer
from segmed.data.slices import SliceDataset
from segmed.evaluation.case_scores import CaseScore
from segmed.imaging.picture import open_picture
from segmed.imaging.prompts import parse_prompt
from segmed.inference.loading import find_method
from segmed.methods.base.trainable import save_trained
from segmed.methods.unet_config import UnetFamilyConfig
from segmed.methods.unet_family import Unet
from segmed.registry.model_version import DataFingerprint, VersionRecord
from segmed.registry.versions import Registry
from segmed.server.config.settings import ServerSettings
from segmed.server.engine import Engine
from segmed.server.http.requests import InferParams
from segmed.server.tasks.automatic import AutomaticInferTask
from segmed.server.tasks.infer import PromptInferTask
from segmed.server.tasks.train import MethodTrainTask
from small_training import make_discs

RECORD = VersionRecord(
    (CaseScore("ct", "bright", 0.9, 3.0),), DataFingerprint(("ct",), {}, {"train": ("ct",)}), {}
)
UNET = find_method("unet")
STUDIES = cast(Datastore, None)  # what is read of them is put in its place


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(
        ServerSettings.from_conf({"models": "unet", "labels": "bright,dark"}), Registry(tmp_path / "models")
    )


def _serve(engine: Engine, **config: Any) -> None:
    method = Unet(None, UnetFamilyConfig(("bright", "dark"), "resnet18", 32, **config))
    kept = engine.registry.add("unet", lambda folder: save_trained(method, folder, ""), RECORD)
    engine.registry.promote("unet", kept.version)


def test_what_is_offered_follows_the_version(engine: Engine) -> None:
    assert not engine.offered()
    _serve(engine)
    assert engine.offered() == [UNET]
    assert engine.names(UNET) == ["unet", "unet_prompt", "unet_prompt_3d"]
    _serve(engine, box_channel=True)
    assert engine.names(UNET) == ["unet_prompt", "unet_prompt_3d"]
    assert engine.labels("unet") == ("bright", "dark")
    assert engine.names(find_method("medsam")) == ["medsam", "medsam_3d"]


def test_a_version_with_a_box_channel_answers_boxes(engine: Engine, tmp_path: Path) -> None:
    _serve(engine, box_channel=True)
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).normal(size=(40, 36, 3)), np.eye(4)), tmp_path / "ct.nii.gz"
    )
    picture = open_picture(tmp_path / "ct.nii.gz", "auto")
    prompt, _ = parse_prompt(picture.shape, [5, 20, 6, 24, 1, 1], [], [], None)
    masks, _ = PromptInferTask(UNET, False, engine).segment(picture, prompt, "cpu")
    assert list(masks) == [1]
    assert masks[1].shape == (36, 40)


@pytest.mark.parametrize("box", [False, True])
def test_studies_can_be_ranked_by_it(engine: Engine, tmp_path: Path, box: bool) -> None:
    _serve(engine, box_channel=box)
    image = tmp_path / "ct.nii.gz"
    make_discs(tmp_path / "discs", volumes=1)
    (tmp_path / "discs" / "imagesTr" / "v0.nii.gz").rename(image)
    predictor = engine.predictor("unet", "cpu")
    found = Scorer(predictor.segmenter, embed=predictor.embedding).score(open_picture(image, "auto"))
    assert found is not None
    assert {"entropy", "jitter"} <= set(found.scores)
    # Without a box channel, mean and maximum of the encoder's deepest 512 channels; with it, grey values.
    assert found.embedding.shape == ((256,) if box else (1024,))


def test_train_in_the_viewer_gives_a_model_of_type_segmentation(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data: SliceDataset = make_discs(tmp_path / "discs", volumes=3)
    monkeypatch.setattr(MethodTrainTask, "_data", lambda *_: data)
    task = MethodTrainTask(UNET, engine)
    offered = task.config()
    assert (offered["encoder"], offered["input_size"], offered["box_channel"]) == (
        "efficientnet-b5",
        256,
        False,
    )
    request = {
        "encoder": "resnet18",
        "input_size": 32,
        "epochs": 1,
        "epoch_steps": 1,
        "learning_rate": 1e-3,
        "device": "cpu",
        "other": 1,
    }
    told = task(request, STUDIES)
    assert told["state"] == "finished"
    kept = engine.registry.versions("unet")
    assert len(kept) == 1
    engine.registry.promote("unet", kept[0].version)
    infer = AutomaticInferTask(UNET, engine)
    assert infer.type == InferType.SEGMENTATION
    image = tmp_path / "discs" / "imagesTr" / "v0.nii.gz"
    file, answer = infer({"image": str(image), "params": InferParams(device="cpu")})
    assert answer["label_names"] == {"bright": 1, "dark": 2}
    assert file is not None
    assert set(np.unique(nrrd.read(file)[0])) <= {0, 1, 2}
    Path(file).unlink()


def test_a_wrong_encoder_is_told_to_the_viewer(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_discs(tmp_path / "discs", volumes=2)
    monkeypatch.setattr(MethodTrainTask, "_data", lambda *_: data)
    task = MethodTrainTask(UNET, engine)
    with pytest.raises(ValueError, match="The encoder 'resnet17' is unknown"):
        task({"encoder": "resnet17", "device": "cpu"}, STUDIES)
    assert task.stats()["state"] == "failed"
    assert "resnet17" in task.stats()["message"]

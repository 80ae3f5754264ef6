"""The numbers of a training in MLflow, which is asked only if an address is given."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from segmed.training.mlflow_sink import ADDRESS, MlflowSink
from segmed.training.progress import RunReport

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv(ADDRESS, found)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "livers")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return found


def test_a_resumed_training_continues_its_run(address: str, tmp_path: Path) -> None:
    folder = tmp_path / "0001"
    folder.mkdir()
    history = [{"epoch": 1, "step": 10, "loss": 0.5, "rate": 1e-3, "dice": 0.7}]
    report = RunReport(folder, 0, {"epochs": 2, "seed": 5})
    report.epoch(history, [], [], last=False)
    report.close()
    history.append({"epoch": 2, "step": 20, "loss": 0.25, "rate": 1e-4})
    report = RunReport(folder, 10, {"epochs": 2, "seed": 5})
    report.epoch(history, [], [], last=True)
    report.close()
    client = mlflow.tracking.MlflowClient(address)
    experiment = client.get_experiment_by_name("livers")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"epochs": "2", "seed": "5"}
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in losses] == [(10, 0.5), (20, 0.25)]
    assert run.data.metrics["dice"] == 0.7
    assert (folder / "events").is_dir(), "TensorBoard stays"


def test_a_server_that_is_down_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING):
        sink = MlflowSink(tmp_path, {})
    assert "gets no more numbers" in caplog.text
    sink.log({"loss": 1.0}, 1)
    sink.close(True)


def test_nothing_is_imported_without_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    sink = MlflowSink(tmp_path, {})
    sink.log({"loss": 1.0}, 1)
    sink.close(True)
    assert not list(tmp_path.iterdir())

"""The numbers of a training in MLflow, beside TensorBoard, if MLFLOW_TRACKING_URI names a place for them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import segmed

logger = logging.getLogger(__name__)
ADDRESS = "MLFLOW_TRACKING_URI"
_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
_NOTE = "mlflow.json"  # in the folder of a training: its run, so that a resumed training continues it
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class MlflowSink:
    """One run of MLflow. Errors are logged once and end the reports, never the training.

    Args:
        folder: Folder of the training.
        settings: Settings of the training, which become parameters of the run.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._client: Any = None
        self._run = ""
        if not os.environ.get(ADDRESS):
            return
        for name, value in _IMPATIENCE.items():  # a server that is down must not stop a training for minutes
            os.environ.setdefault(name, value)
        try:
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient()
            self._run = self._continued(folder) or self._begun(folder, settings)
        except Exception as error:
            self._give_up(error)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Report values at a step."""
        if not self._run:
            return
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        try:
            now = get_current_time_millis()
            metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
            self._client.log_batch(self._run, metrics)
        except Exception as error:
            self._give_up(error)

    def close(self, finished: bool) -> None:
        """End the run; one that is not finished can be continued."""
        if not self._run:
            return
        try:
            self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")
        except Exception as error:
            self._give_up(error)

    def _continued(self, folder: Path) -> str:
        try:
            run = str(json.loads((folder / _NOTE).read_text(encoding="utf-8"))["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        self._client.update_run(run, "RUNNING")
        return run

    def _begun(self, folder: Path, settings: Mapping[str, Any]) -> str:
        name = os.environ.get(_EXPERIMENT) or "segmed"
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        tags = {"mlflow.runName": folder.name, "segmed.version": segmed.__version__}
        run = str(self._client.create_run(experiment, tags=tags).info.run_id)
        for key, value in settings.items():
            self._client.log_param(run, key, str(value)[:500])
        (folder / _NOTE).write_text(json.dumps({"run": run}) + "\n", encoding="utf-8")
        return run

    def _give_up(self, error: Exception) -> None:
        logger.warning(
            "MLflow at %s gets no more numbers of this training: %.200s", os.environ[ADDRESS], error
        )
        self._run = ""

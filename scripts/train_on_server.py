#!/usr/bin/env python
"""Train through a real server as a viewer does, and measure on volumes that nobody submitted.

    python scripts/train_on_server.py HIPPOCAMPUS [--model lora] [--submit 40] [--test 20]

Copies volumes of an MSD task into a studies folder, starts the server on it, submits labels by HTTP, presses
Train, waits, asks the trained model for the other volumes without a prompt, and prints Dice by label.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from segmed.client import NoServerError, SegMedClient
from segmed.data.datasets.msd import load_msd
from segmed.evaluation.metrics import Overlap
from segmed.imaging.reading import read_volume

SERVE = Path(__file__).resolve().parent / "serve.sh"


def start(studies: Path, registry: Path, labels: str) -> tuple[subprocess.Popen[bytes], SegMedClient]:
    """A server on a free port, ready, and its client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(SERVE), "--studies", str(studies), "--port", str(port)]
    process = subprocess.Popen([*words, "--conf", "registry", str(registry), "--conf", "labels", labels])
    client = SegMedClient(f"http://127.0.0.1:{port}", "annotator")
    for _ in range(600):
        try:
            client.state()
            return process, client
        except NoServerError:
            time.sleep(0.2)
    raise TimeoutError("The server did not start.")


def train(client: SegMedClient, model: str, options: dict[str, float]) -> str:
    """Press Train and wait; what the server says at the end."""
    for warning in client.monai.train(model, **options)["warnings"]:
        print(warning)
    told = ""
    while True:
        time.sleep(5)
        status = client.monai.training()["status"]
        stats = client.monai.info()["train_stats"].get(model, {})
        now = f"pass {stats.get('epoch')}/{stats.get('total_epochs')}, best Dice {stats.get('best_metric')}"
        if now != told:
            told = now
            print(f"{stats.get('elapsed', '')}  {now}", flush=True)
        if status not in ("SUBMITTED", "RUNNING"):
            return f"{status}: {stats.get('message')}"


def predict(client: SegMedClient, model: str, image: str) -> tuple[np.ndarray, dict[str, int]]:
    """The label map (I, J, K) of a model, and its values by name."""
    mask = client.monai.infer(model, image, {"result_extension": ".nii.gz"})
    found = nib.Nifti1Image.from_bytes(gzip.decompress(mask.content))
    return np.asarray(found.dataobj), mask.params["label_names"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder of an MSD task")
    parser.add_argument("--model", default="lora", choices=["lora", "adapter"])
    parser.add_argument("--submit", type=int, default=40)
    parser.add_argument("--test", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = load_msd(options.dataset)
    names = list(data.classes.values())
    order = np.random.default_rng(options.seed).permutation(len(data.volumes))
    chosen = [data.volumes[n] for n in order[: options.submit + options.test]]
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        studies.mkdir()
        for volume in chosen:
            shutil.copy(volume.image, studies / f"{volume.patient}.nii.gz")
        process, client = start(studies, Path(folder) / "registry", ",".join(names))
        try:
            for volume in chosen[: options.submit]:
                client.monai.submit_label(volume.patient, volume.label, names)
            print(train(client, options.model, {"epochs": options.epochs, "batch": options.batch}))
            dice: dict[str, list[float]] = {name: [] for name in names}
            for volume in chosen[options.submit :]:
                found, values = predict(client, options.model, volume.patient)
                truth = read_volume(volume.label).array
                for value, name in enumerate(names, 1):
                    dice[name].append(Overlap.of(found == values[name], truth == value).dice())
        finally:
            process.terminate()
            process.wait(30)
    print(f"\n{options.model}, {options.submit} volumes submitted, {options.test} others asked for:\n")
    print("| label | mean Dice | sd |\n|---|---|---|")
    for name, values in dice.items():
        print(f"| {name} | {np.mean(values):.3f} | {np.std(values):.3f} |")
    print(f"| **mean** | **{np.mean([np.mean(v) for v in dice.values()]):.3f}** | |")


if __name__ == "__main__":
    main()

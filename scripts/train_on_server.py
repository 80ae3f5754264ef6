#!/usr/bin/env python
"""Train through a real server as a viewer does, and measure on volumes that nobody submitted.

    python scripts/train_on_server.py HIPPOCAMPUS [--model lora] [--submit 40] [--test 20]

Copies volumes of an MSD task into a studies folder, starts the server on it, submits labels by HTTP, presses
Train, waits, asks the trained model for the other volumes without a prompt, and prints Dice by label.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import nrrd
import numpy as np
import requests
from monailabel.client import MONAILabelClient
from segmed.data.datasets.msd import load_msd
from segmed.data.slices import LabelledVolume
from segmed.evaluation.metrics import Overlap
from segmed.imaging.reading import read_volume

SERVE = Path(__file__).resolve().parent / "serve.sh"


def start(studies: Path, registry: Path, labels: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server on a free port, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(SERVE), "--studies", str(studies), "--port", str(port)]
    process = subprocess.Popen([*words, "--conf", "registry", str(registry), "--conf", "labels", labels])
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            requests.get(f"{url}/info/", timeout=5)
            return process, url
        except requests.ConnectionError:
            time.sleep(0.2)
    raise TimeoutError("The server did not start.")


def submit(url: str, volume: LabelledVolume, names: list[str]) -> None:
    info = json.dumps({"label_info": [{"name": name, "idx": n} for n, name in enumerate(names, 1)]})
    with volume.label.open("rb") as file:
        answer = requests.put(
            f"{url}/datastore/label?image={volume.patient}",
            data={"params": info},
            files={"label": file},
            timeout=60,
        )
    answer.raise_for_status()


def train(url: str, model: str, options: dict[str, float]) -> str:
    """Press Train and wait; what the server says at the end."""
    requests.post(f"{url}/train/{model}", json=options, timeout=60).raise_for_status()
    told = ""
    while True:
        time.sleep(5)
        status = requests.get(f"{url}/train/", timeout=60).json()["status"]
        stats = requests.get(f"{url}/info/", timeout=60).json()["train_stats"].get(model, {})
        now = f"pass {stats.get('epoch')}/{stats.get('total_epochs')}, best Dice {stats.get('best_metric')}"
        if now != told:
            told = now
            print(f"{stats.get('elapsed', '')}  {now}", flush=True)
        if status not in ("SUBMITTED", "RUNNING"):
            return f"{status}: {stats.get('message')}"


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
        process, url = start(studies, Path(folder) / "registry", ",".join(names))
        try:
            for volume in chosen[: options.submit]:
                submit(url, volume, names)
            print(train(url, options.model, {"epochs": options.epochs, "batch": options.batch}))
            client = MONAILabelClient(url, folder)
            dice: dict[str, list[float]] = {name: [] for name in names}
            for volume in chosen[options.submit :]:
                file, told = client.infer(options.model, volume.patient, {"result_extension": ".nrrd"})
                found, truth = nrrd.read(file)[0], read_volume(volume.label).array
                for value, name in enumerate(names, 1):
                    dice[name].append(Overlap.of(found == told["label_names"][name], truth == value).dice())
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

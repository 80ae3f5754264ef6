#!/usr/bin/env python
"""What a click costs through the server, beside the bare encoder and decoder in the same run.

Prints a Markdown table for the embedded default model, and one per backbone: `tiny` (4 layers, 256 px) and
`vit-b` (12 layers, 1024 px), both with random weights, since only time and memory are measured. Usage: python
scripts/bench_serve.py [--backbone segmed] [--slices 32]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import requests
import torch
from segmed.imaging.picture import open_picture
from segmed.imaging.prompts import SlicePrompt
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods.sam.medsam import MedSam
from transformers import SamConfig, SamModel

SHAPE = (512, 512, 200)
BOX = (120.0, 140.0, 380.0, 330.0)


def tiny_config() -> SamConfig:
    """A small SAM of 256 px."""
    return SamConfig(
        vision_config={
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": 256,
            "window_size": 8,
            "global_attn_indexes": [1, 3],
        },
        prompt_encoder_config={"image_size": 256},
    )


def random_backbone(config: SamConfig, folder: Path) -> Path:
    """Weights drawn at the scale of trained ones, saved where the server reads them."""
    torch.manual_seed(0)
    model = SamModel(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.trunc_normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    return folder


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Server:
    """`segmed serve` as a process of its own."""

    def __init__(self, studies: Path, backbone: Path | None = None, **conf: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(Path(sys.executable).parent / "segmed"),
            "serve",
            "--studies",
            str(studies),
            "--port",
            str(port),
        ]
        for key, value in {**({"backbone": str(backbone)} if backbone else {}), **conf}.items():
            command += ["--conf", key, value]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout
        for line in self.process.stdout:
            if "SegMed is ready" in line:
                break
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def infer(self, model: str, k0: int, k1: int, image: str = "scan", nudge: int = 0) -> dict[str, object]:
        """One prompt; the body is read whole, as a viewer does."""
        x0, y0, x1, y1 = (int(v) for v in BOX)
        params = {"roi": [x0 + nudge, x1, y0, y1, k0, k1], "result_extension": ".nrrd"}
        # http.client, as 3D Slicer's plugin does
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=3600)
        body = urllib.parse.urlencode({"params": json.dumps(params)})
        connection.request(
            "POST",
            f"/infer/{model}?image={image}",
            body,
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status == 200, content[:500]
        return json.loads(content[:4096].split(b"\r\n\r\n", 2)[1].split(b"\r\n", 1)[0])

    def rss(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**30

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def info_latency(server: Server, busy: Callable[[], object]) -> tuple[float, float]:
    """Median and worst time of GET /info/ while `busy` runs in the server."""
    thread = threading.Thread(target=busy)
    thread.start()
    times = []
    while thread.is_alive():
        start = time.perf_counter()
        requests.get(f"{server.url}/info/", timeout=60)
        times.append(time.perf_counter() - start)
        time.sleep(0.02)
    thread.join()
    return statistics.median(times), max(times)


def measure_default(slices: int, studies: Path) -> None:
    """Print the table of the embedded model, which encodes a window per prompt and not a slice."""
    server = Server(studies)
    try:
        idle = server.rss()
        start = time.perf_counter()
        server.infer("segmed", 0, 0)
        cold = time.perf_counter() - start
        ks = iter(range(1, 60))
        parts: dict[str, list[float]] = {"first": [], "again": []}

        def infer(kind: str, k: int, nudge: int = 0) -> None:
            parts[kind].append(server.infer("segmed", k, k, nudge=nudge)["latencies"]["segment"])  # type: ignore[index]

        first = seconds(lambda: infer("first", next(ks)), 10)
        again = seconds(lambda: infer("again", 0, next(ks)), 20)
        inside = {kind: statistics.median(times) for kind, times in parts.items()}
        start = time.perf_counter()
        server.infer("segmed_3d", 100, 100 + slices - 1)
        volume = time.perf_counter() - start
        print("\n**segmed** (embedded), windows around the prompt\n\n| what | measured | |\n|---|---|---|")
        print(f"| first request of all (reads volume and weights) | {cold:.1f} s | |")
        for what, whole, kind, target in (
            ("first prompt on a new slice", first, "first", 300),
            ("repeated prompt", again, "again", 60),
        ):
            print(
                f"| {what} | {whole * 1e3:.0f} ms | {inside[kind] * 1e3:.0f} ms without HTTP (target ≤ "
                f"{target}) |"
            )
        print(f"| `_3d` box of {slices} slices | {volume:.1f} s | {volume / slices * 1e3:.0f} ms a slice |")
        print(
            f"| server memory idle → after | {idle:.2f} → {server.rss():.2f} GiB | target ≤ 1 GB |",
            flush=True,
        )
    finally:
        server.close()


def measure(name: str, config: SamConfig, slices: int, work: Path, studies: Path) -> None:
    """Print the table of one backbone."""
    backbone = random_backbone(config, work / name)
    picture = open_picture(studies / "scan.nii.gz")
    method = Loader().get("medsam", BackboneConfig(str(backbone)))
    assert isinstance(method, MedSam)
    prompt = SlicePrompt(box=BOX)
    repeats = 5 if name == "tiny" else 3
    with torch.inference_mode():
        pixels, _ = method.prepare(picture.slice(0))
        embedding = method.embed([picture.slice(0)])
        encoder = seconds(lambda: method.encode(pixels[None]), repeats)
        decoder = seconds(lambda: method.decode(embedding, [[prompt]], SHAPE[:2]), 10)
    server = Server(studies, backbone)
    try:
        idle = server.rss()
        start = time.perf_counter()
        server.infer("medsam", 0, 0)
        cold = time.perf_counter() - start
        ks = iter(range(1, 40))
        first = seconds(lambda: server.infer("medsam", k := next(ks), k), repeats)
        again = seconds(lambda: server.infer("medsam", 0, 0, nudge=next(ks)), 10)
        start = time.perf_counter()
        told = server.infer("medsam_3d", 100, 100 + slices - 1)
        volume = time.perf_counter() - start
        opened = told["latencies"]["open"]  # type: ignore[index]
        info, worst = info_latency(server, lambda: server.infer("medsam_3d", 140, 140 + max(2, slices // 8)))
        with torch.inference_mode():  # bracket the server's volume by bare calls: the machine's speed drifts
            encoder = (encoder + seconds(lambda: method.encode(pixels[None]), repeats)) / 2
        rows = [
            ("bare encoder, per slice", f"{encoder * 1e3:.0f} ms", ""),
            ("bare decoder, per prompt", f"{decoder * 1e3:.0f} ms", ""),
            ("first request of all (reads volume and weights)", f"{cold:.1f} s", ""),
            (
                "first prompt on a new slice",
                f"{first * 1e3:.0f} ms",
                f"{first / (encoder + decoder):.2f} × bare",
            ),
            (
                "repeated prompt",
                f"{again * 1e3:.0f} ms",
                f"target ≤ {1.5 * decoder * 1e3 + 50:.0f} ms (1.5 × decoder + 50 ms)",
            ),
            (
                f"`_3d` box of {slices} slices",
                f"{volume:.1f} s",
                f"{encoder * slices / volume:.0%} of the bare encoder's slice rate (target ≥ 85 %)",
            ),
            ("volume opened again for it", f"{opened * 1e3:.1f} ms", "512×512×200 is read once"),
            (
                "GET /info/ while segmenting, median",
                f"{info * 1e3:.0f} ms",
                f"worst {worst * 1e3:.0f} ms (target < 100)",
            ),
            ("server memory idle → after", f"{idle:.2f} → {server.rss():.2f} GiB", ""),
        ]
    finally:
        server.close()
    dtype = next(method.model.vision_encoder.layers[0].mlp.parameters()).dtype
    print(f"\n**{name}**, encoder in {dtype}, {config.vision_config.image_size} px\n")
    print("| what | measured | |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=["segmed", "tiny", "vit-b", "all"], default="all")
    parser.add_argument("--slices", type=int, default=32)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        studies = work / "studies"
        studies.mkdir()
        rng = np.random.default_rng(0)
        plane = rng.normal(0, 300, (*SHAPE[:2], 1)).astype(np.int16)
        nib.save(nib.Nifti1Image(np.repeat(plane, SHAPE[2], axis=2), np.eye(4)), studies / "scan.nii.gz")
        if arguments.backbone in ("segmed", "all"):
            measure_default(arguments.slices, studies)
        for name, config in (("tiny", tiny_config()), ("vit-b", SamConfig())):
            if arguments.backbone in (name, "all"):
                measure(name, config, arguments.slices, work, studies)


if __name__ == "__main__":
    main()

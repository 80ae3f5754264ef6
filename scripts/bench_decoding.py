"""What it costs to decode a file in another process: the same file in this process and in a decoding process,
in turns.

python scripts/bench_decoding.py [--slices 300] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from segmed.data.phantom.dicom import write_series
from segmed.imaging.decoding.decoder import Decoder
from segmed.imaging.picture import open_picture
from segmed.imaging.reading import read_volume


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print one line for each file and way of reading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shape = (512, 512, options.slices)
    rng = np.random.default_rng(0)
    voxels = np.zeros(shape, np.int16)
    for k in range(options.slices):  # a disc of tissue with noise, in air
        i, j = np.ogrid[:512, :512]
        body = (i - 256) ** 2 + (j - 256) ** 2 < 200**2
        voxels[:, :, k] = np.where(body, rng.normal(40, 20, shape[:2]), -1000)
    decoder = Decoder()
    print(f"start of a process: {_seconds(decoder.workers.warm):.2f} s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "ct.nii.gz")
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "ct.nii")
        write_series(folder / "series", voxels, np.eye(4))
        for path in (folder / "ct.nii.gz", folder / "ct.nii", folder / "series"):
            ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                "voxels": (lambda path=path: read_volume(path), lambda path=path: decoder.volume(path)),
                "picture": (lambda path=path: open_picture(path), lambda path=path: decoder.picture(path)),
                "check": (lambda path=path: read_volume(path), lambda path=path: decoder.check(path)),
            }
            for what, (here, there) in ways.items():
                pairs = [(_seconds(here), _seconds(there)) for _ in range(options.rounds)]
                ratio = statistics.median(other / own for own, other in pairs)
                own, other = (statistics.median(times) for times in zip(*pairs, strict=True))
                print(
                    f"{path.name:10} {what:8} in process {own:6.2f} s, child {other:6.2f} s, ratio "
                    f"{ratio:.2f}"
                )
    decoder.workers.close()


if __name__ == "__main__":
    main()

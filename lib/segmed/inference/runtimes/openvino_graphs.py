"""Graphs of a method compiled by OpenVINO for this CPU, once, and read from a cache afterwards."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segmed.imaging.durable import appear_whole, sweep
from segmed.inference.runtimes.library import openvino
from segmed.methods.base.graph import Graph, Run
from segmed.sam.digest import state_digest

logger = logging.getLogger(__name__)

#: OpenVINO's names of number formats by ours.
HINTS = {"fp32": "f32", "bf16": "bf16"}


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this CPU, which it offers only where the CPU has instructions."""
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def to_openvino(graph: Graph) -> Any:
    """An OpenVINO model of a graph, with the graph's names of inputs and outputs, in float32."""
    library = openvino()
    free = {name: graph.free.get(name, {}) for name in graph.inputs}
    shapes = [
        library.PartialShape([-1 if axis in free[name] else n for axis, n in enumerate(t.shape)])
        for name, t in graph.inputs.items()
    ]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # what it finds constant is constant here
        model = library.convert_model(
            graph.module.eval(), input=shapes, example_input=tuple(graph.inputs.values())
        )
    for port, name in zip(model.inputs, graph.inputs, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({name})
    return model


class Compiler:
    """Compiles graphs, and keeps the compiled ones in a folder.

    Args:
        folder: Folder of the cache, which may not exist yet.
        threads: CPU threads of each graph.
        tell: Function that is told what is being compiled, because it can take a minute.
    """

    def __init__(self, folder: Path, threads: int, tell: Callable[[str], None] = logger.info) -> None:
        self.folder, self.threads, self.tell = folder, threads, tell

    def compile(self, graph: Graph, precision: str) -> Run:
        """A function that computes a graph.

        Args:
            graph: The graph.
            precision: A key of `HINTS`; inputs and outputs are float32 in each.
        """
        core = openvino().Core()
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        path = self.folder / f"{graph.name}-{precision}-{self._key(core, graph)}.blob"
        compiled = self._cached(core, path, settings)
        if compiled is None:
            self.tell(
                f"compiling the {graph.name} with OpenVINO for this CPU ({precision}); this is done once"
            )
            compiled = core.compile_model(to_openvino(graph), "CPU", settings)
            self._keep(compiled, path)
        return _runner(compiled, len(graph.outputs))

    def _key(self, core: Any, graph: Graph) -> str:
        """A hash of weights, shapes, this CPU and OpenVINO's version: a blob fits nothing else."""
        shapes = {name: (tuple(t.shape), graph.free.get(name)) for name, t in graph.inputs.items()}
        cpu = (
            core.get_property("CPU", "FULL_DEVICE_NAME"),
            core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        )
        facts = repr(
            (shapes, cpu, self.threads, openvino().__version__, torch.__version__, str(graph.module))
        )
        return hashlib.sha256(state_digest(facts, graph.module.state_dict()).encode()).hexdigest()[:16]

    def _cached(self, core: Any, path: Path, settings: dict[str, Any]) -> Any:
        try:
            return core.import_model(io.BytesIO(path.read_bytes()), "CPU", settings)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError) as error:  # cut off, or of another build of OpenVINO
            logger.warning("%s cannot be used and is compiled again: %s", path.name, str(error)[:200])
            return None

    def _keep(self, compiled: Any, path: Path) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            with appear_whole(path, sync=False) as part:
                part.write_bytes(compiled.export_model().getvalue())
        except OSError as error:
            logger.warning("The compiled network cannot be kept, so the next start takes longer: %s", error)


def _runner(compiled: Any, outputs: int) -> Run:
    request, lock = compiled.create_infer_request(), threading.Lock()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        arrays = [t.detach().float().contiguous().numpy() for t in inputs]
        with lock:
            found = request.infer(arrays, share_inputs=True)
            return tuple(torch.from_numpy(found[n].copy()) for n in range(outputs))

    return run

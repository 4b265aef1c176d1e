"""Would another runtime be faster for the tiny model on this CPU? Measured, to choose by.

    pip install onnx onnxscript onnxruntime openvino
    python scripts/bench_cpu_runtimes.py --out benchmarks/tiny-cpu-runtimes.json

The decoder, and one pass of the DiT over a full window (its keys and values are inputs and outputs,
as they would have to be, since the cache is ours), each as torch runs it here (the pass as a list
of calls), as it is written, by inductor, ONNX Runtime and OpenVINO. All are measured in turns, so
that ratios hold on a busy machine. Says nothing about the copies between the cache and a foreign
runtime: those would come on top.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamgen.clock import MonotonicClock
from streamgen.engine.host_recorder import HostRecorder
from streamgen.models.base import Conditioning, TextKV
from streamgen.models.linear_layout import lay_out_for_few_rows
from streamgen.models.tiny.codec import LATENT_CHANNELS
from streamgen.ops.attention import attention
from streamgen.ops.few_calls import FEW_CALLS
from streamgen.ops.operations import PLAIN
from streamgen.ops.rope import RopeTable, rope_table, rotate
from streamgen.serving.bench.machine import machine_facts
from streamgen.serving.host import Host

LATENTS = 8  # height and width of a latent frame: 128x128 pixels
WINDOW = 4  # latent frames
LARGEST_ERROR = 1e-3  # of the output, relative: a hundredth of a grey level
Run = Callable[[], Tensor]


class GivenWindow:
    """A LayerKV whose window is handed in, and whose new keys and values are kept for the caller"""

    def __init__(self, k_BMNE: Tensor, v_BMNE: Tensor, table: RopeTable) -> None:
        self._k, self._v, self._table = k_BMNE, v_BMNE, table
        self.new: tuple[Tensor, Tensor] | None = None

    def attend(self, q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor) -> Tensor:
        self.new = (k_BLNE, v_BLNE)
        k_BMNE = torch.cat([self._k, rotate(k_BLNE, self._table)], dim=1)
        return attention(rotate(q_BLNE, self._table), k_BMNE, torch.cat([self._v, v_BLNE], dim=1))


class Pass(nn.Module):
    """One pass of the DiT with everything that changes but the timestep as arguments."""

    def __init__(self, dit: Any, table: RopeTable, grid: Any) -> None:
        super().__init__()
        self.dit, self.grid = dit, grid
        self.table = table
        self.cond: Conditioning = dit.condition(torch.tensor([[500.0]]), ())

    def forward(self, latents_BFCHW: Tensor, text: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """`text` and `window` are keys and values of all blocks: [block, 2, B, tokens, N, E]."""
        blocks = range(self.dit.facts.num_blocks)
        cond = replace(self.cond, text=tuple(TextKV(text[i, 0], text[i, 1]) for i in blocks))
        hidden_BLD = self.dit.embed(latents_BFCHW)
        new: list[Tensor] = []
        for i in blocks:
            kv = GivenWindow(window[i, 0], window[i, 1], self.table)
            hidden_BLD = self.dit.block(i, hidden_BLD, cond, kv)
            assert kv.new is not None
            new.append(torch.stack(kv.new))
        return self.dit.head(hidden_BLD, cond, self.grid), torch.stack(new)


def main() -> int:
    """Measure and write; a runtime that is not installed or cannot run the model is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON; printed if left out")
    parser.add_argument("--rounds", type=int, default=30, metavar="N")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with Host("tiny-cpu") as host, tempfile.TemporaryDirectory() as folder:
        bundle, backend = host.pipeline.bundle, host.pipeline.backend
        found: dict[str, Any] = {
            "machine": machine_facts(backend),
            "settings": {"size": "128x128", "rows": 1, "window": WINDOW, "rounds": options.rounds},
        }
        with torch.inference_mode():
            latents_FCHW = torch.randn(1, LATENT_CHANNELS, LATENTS, LATENTS)
            decoder = bundle.codec.decoder  # type: ignore[attr-defined]
            found["decoder"] = compare(
                decoder, (latents_FCHW, latents_FCHW), Path(folder) / "decoder", options.rounds
            )
            found["pass"] = compare(*the_pass(bundle.dit), Path(folder) / "pass", options.rounds)
    text = json.dumps(found, indent=1) + "\n"
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


def the_pass(dit: Any) -> tuple[nn.Module, tuple[Tensor, ...]]:
    facts = dit.facts
    grid = dit.grid(LATENTS, LATENTS)
    table = rope_table(torch.tensor([[WINDOW]]), grid, facts.head_dim)
    tokens, heads = grid.num_tokens, (facts.num_heads, facts.head_dim)
    channels = facts.latent_channels + facts.condition_channels
    inputs = (
        torch.randn(1, 1, channels, LATENTS, LATENTS),
        torch.randn(facts.num_blocks, 2, 1, facts.text_len, *heads),
        torch.randn(facts.num_blocks, 2, 1, WINDOW * tokens, *heads),
    )
    return Pass(dit, table, grid).eval(), inputs


def compare(module: nn.Module, inputs: Sequence[Tensor], path: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds by every runtime, and how many times as fast as torch as it runs here."""
    uses = getattr(getattr(module, "dit", None), "use", None)
    runs: dict[str, Run] = {}
    found: dict[str, Any] = {}
    if uses is not None:
        uses(PLAIN)
    expected = _first(module(*inputs))
    makers: dict[str, Callable[[], Run]] = {
        "torch": lambda: lambda: _first(module(*inputs)),
        "inductor": lambda: _inductor(module, inputs),
        "onnxruntime": lambda: _onnxruntime(module, inputs, path),
        "openvino": lambda: _openvino(module, inputs, path),
    }
    for name, make in makers.items():
        try:
            run = make()
            error = float((run() - expected).norm() / expected.norm())
            if not error < LARGEST_ERROR:
                raise ValueError(f"relative error {error:.1e}")
        except Exception as problem:  # whatever a foreign runtime raises
            found[name] = f"{type(problem).__name__}: {str(problem).splitlines()[0][:200]}"
            continue
        runs[name], found[name] = run, {"relative_error": error}
    if uses is not None:  # what is written for few calls cannot be exported, but is what runs here
        runs["as it is written"], found["as it is written"] = runs["torch"], {}
        uses(FEW_CALLS)
        lay_out_for_few_rows(module.dit)  # type: ignore[arg-type]
        runs["torch"] = _recorded(module, inputs)
        error = float((runs["torch"]() - expected).norm() / expected.norm())
        found["torch"] = {"relative_error": error}
    clock = MonotonicClock()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 3):
        for name, run in runs.items():
            began_s = clock.now()
            run()
            times[name].append(clock.now() - began_s)
    base = times["torch"][3:]
    for name, all_s in times.items():
        taken_s = all_s[3:]
        ratios = [ours / theirs for ours, theirs in zip(base, taken_s, strict=True)]
        found[name] |= {
            "ms": round(1e3 * statistics.median(taken_s), 3),
            "lowest_ms": round(1e3 * min(taken_s), 3),
            "speed_up": round(statistics.median(ratios), 3),
            "speed_up_of_lowest": round(min(base) / min(taken_s), 3),
        }
    return found


def _recorded(module: nn.Module, inputs: Sequence[Tensor]) -> Run:
    _first(module(*inputs))
    replay, result = HostRecorder().record(lambda: _first(module(*inputs)))

    def run() -> Tensor:
        replay()
        return result

    return run


def _first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def _inductor(module: nn.Module, inputs: Sequence[Tensor]) -> Run:
    compiled = torch.compile(module, dynamic=False)
    return lambda: _first(compiled(*inputs))


def _export(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> Path:
    """Written once, for both runtimes that read it."""
    file = path.with_suffix(".onnx")
    if not file.exists():
        torch.onnx.export(module, tuple(inputs), str(file), dynamo=True, verbose=False)
    return file


def _onnxruntime(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> Run:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    session = runtime.InferenceSession(str(_export(module, inputs, path)), options)
    names = [one.name for one in session.get_inputs()]
    feeds = {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feeds)[0])


def _openvino(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> Run:
    runtime: Any = importlib.import_module("openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    compiled = runtime.compile_model(str(_export(module, inputs, path)), "CPU", settings)
    arrays = [one.numpy() for one in inputs]
    return lambda: torch.from_numpy(compiled(arrays)[0].copy())


if __name__ == "__main__":
    sys.exit(main())

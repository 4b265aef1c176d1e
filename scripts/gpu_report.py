"""Everything that only a GPU can tell, in one call of less than 8 minutes.

    python scripts/gpu_report.py --out benchmarks/gpu-h200

Needs torch 2.11 or newer with CUDA, Triton, numpy and safetensors, and this repository. Kernels
against their definitions, the table of attentions, whole streams of 1.3B and 14B of random weights
at 480x832 (kernels, graphs, FP8 on and off), each beside the limit of this very chip, and a profile
of where the time goes. Writes OUT.json and OUT.md. `--rehearse` runs the same on tiny sizes on any
machine, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "scripts")]

from gpu_parts.rearrange import provide_einops  # noqa: E402

EINOPS = provide_einops()

import torch  # noqa: E402

from gpu_parts.kernel_table import Size, kernel_table  # noqa: E402
from gpu_parts.streams import MeasuredStream, StreamCase, random_model  # noqa: E402
from streamgen.clock import MonotonicClock  # noqa: E402
from streamgen.engine.compile import CudaRecorder  # noqa: E402
from streamgen.engine.forward import AsWritten, Replayed  # noqa: E402
from streamgen.engine.recipe import CacheMode  # noqa: E402
from streamgen.models.quantised import Linears  # noqa: E402
from streamgen.models.wan.config import WanConfig  # noqa: E402
from streamgen.models.wan.tae import TAEW_21, TaeConfig  # noqa: E402
from streamgen.ops.attention_backends import AttentionShape, try_attentions  # noqa: E402
from streamgen.ops.backend import Backend, choose_operations  # noqa: E402
from streamgen.ops.operations import PLAIN, Operations  # noqa: E402
from streamgen.ops.rope import TokenGrid  # noqa: E402
from streamgen.serving.bench.machine import machine_facts, measure_peaks  # noqa: E402
from streamgen.serving.bench.work import forward_work  # noqa: E402

WAN_1_3B = WanConfig(16, 16, 1536, 8960, 256, 4096, 512, 12, 30, 2, 2, 1e-6)
WAN_14B = WanConfig(16, 16, 5120, 13824, 256, 4096, 512, 40, 40, 2, 2, 1e-6)
SMALL = WanConfig(16, 16, 64, 128, 32, 32, 8, 2, 2, 2, 2, 1e-6)
SMALL_TAE = TaeConfig(latent_channels=16, encoder_width=8, decoder_widths=(8, 8, 8, 8))
RESERVE_S = 20.0  # for the profile and for writing
REPEATS = 20


@dataclass
class Report:
    """What was found so far, and how much time is left."""

    ends_s: float
    found: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str, run: Callable[[], Any], *, needs_s: float) -> None:
        """Run a part if there is time for it; what it raises is its result, the rest goes on."""
        left_s = self.ends_s - time.monotonic()
        if left_s < needs_s + RESERVE_S:
            self.found[name] = {"left_out": f"{left_s:.0f} s were left, it takes about {needs_s:g}"}
        else:
            began_s = time.monotonic()
            try:
                self.found[name] = run()
            except Exception as error:  # a part that fails is a finding
                self.found[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
            self.found[name]["took_s"] = round(time.monotonic() - began_s, 1)
        print(f"{name}: {json.dumps(self.found[name])[:300]}", flush=True)


def main() -> int:
    """Measure, write, print the table; exit code 2 without a GPU."""
    options = _parser().parse_args()
    device = torch.device("cpu" if options.rehearse else "cuda")
    if not options.rehearse and not torch.cuda.is_available():
        print("gpu_report: torch sees no GPU; --rehearse runs tiny sizes without", file=sys.stderr)
        return 2
    dtype = torch.float32 if options.rehearse else torch.bfloat16
    backend = Backend(device, dtype, choose_operations(device, dtype))
    report = Report(time.monotonic() + options.minutes * 60)
    peaks = measure_peaks(backend, MonotonicClock())
    report.found |= {
        "rehearsal": options.rehearse,
        "machine": machine_facts(backend) | {"einops": EINOPS, "triton": _triton()},
        "peaks": peaks.facts(),
        "operations": backend.operations.name,
    }
    timer = _timer(backend)
    grid = TokenGrid(2, 3) if options.rehearse else TokenGrid(30, 52)
    size = Size(2, 1, grid, *((2, 16) if options.rehearse else (12, 128)), 6)
    report.part(
        "kernels",
        lambda: kernel_table(backend.operations, size, device=device, dtype=dtype, timer=timer),
        needs_s=30,
    )
    attend = PLAIN.attention
    for name, shape in _shapes(grid, options.rehearse).items():
        chosen: list[Any] = []

        def try_all(shape: AttentionShape = shape, chosen: list[Any] = chosen) -> dict[str, Any]:
            fastest, trials = try_attentions(
                shape, device=device, dtype=dtype, clock=MonotonicClock(),
                synchronise=backend.synchronise,
            )  # fmt: skip
            chosen.append(fastest)
            return {
                trial.name: trial.reason
                if trial.seconds is None
                else {"ms": 1e3 * trial.seconds, "tflops": shape.flops / trial.seconds / 1e12}
                for trial in trials
            }

        report.part(f"attention {name}", try_all, needs_s=10)
        attend = chosen[0] if chosen else attend
    fast = replace(backend.operations, attention=attend)
    for name, (case, operations, records, needs_s) in _cases(options.rehearse, fast).items():
        report.part(
            name,
            lambda case=case, operations=operations, records=records: _stream(
                case, operations, records, backend, peaks, report.ends_s - RESERVE_S
            ),
            needs_s=needs_s,
        )
    _write(report.found, options.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="without ending")
    parser.add_argument("--minutes", type=float, default=7.5, metavar="M", help="at most; 7.5")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    return parser


def _shapes(grid: TokenGrid, is_rehearsal: bool) -> dict[str, AttentionShape]:
    """Self-attention of two steps at once over 6 frames, and of three frames over 21."""
    tokens = grid.num_tokens
    if is_rehearsal:
        return {"two steps": AttentionShape(2, tokens, 6 * tokens, 2, 32)}
    return {
        "14B, two steps, 6 frames": AttentionShape(2, tokens, 6 * tokens, 40, 128),
        "1.3B, 3 frames over 12": AttentionShape(1, 3 * tokens, 12 * tokens, 12, 128),
        "1.3B, two steps, 6 frames": AttentionShape(2, tokens, 6 * tokens, 12, 128),
    }


Case = tuple[StreamCase, Operations, bool, float]


def _cases(is_rehearsal: bool, fast: Operations) -> dict[str, Case]:
    """The targets first, then what each means alone, so that a short call has the targets."""
    v2v = StreamCase(
        model=WAN_1_3B, codec=TAEW_21, height=480, width=832, timesteps=(700.0, 500.0),
        mode=CacheMode.PER_STEP, chunk_frames=1, sinks=3, ring=3, has_input=True,
        linears=Linears.FULL,
    )  # fmt: skip
    t2v = replace(
        v2v, timesteps=(1000.0, 937.5, 833.3, 625.0), mode=CacheMode.CLEAN, chunk_frames=3,
        sinks=3, ring=9, has_input=False,
    )  # fmt: skip
    if is_rehearsal:
        small = {"model": SMALL, "codec": SMALL_TAE, "height": 32, "width": 48}
        v2v, t2v = replace(v2v, **small), replace(t2v, **small)
    big = replace(v2v, model=SMALL if is_rehearsal else WAN_14B)
    return {
        "1.3B v2v 2 steps": (v2v, fast, True, 20),
        "1.3B t2v 4+1 steps": (t2v, fast, True, 25),
        "14B v2v 2 steps": (big, fast, True, 40),
        "1.3B v2v 2 steps, FP8": (replace(v2v, linears=Linears.FP8), fast, True, 25),
        "1.3B t2v 4+1 steps, FP8": (replace(t2v, linears=Linears.FP8), fast, True, 30),
        "14B v2v 2 steps, FP8": (replace(big, linears=Linears.FP8), fast, True, 45),
        "1.3B v2v 2 steps, no graphs": (v2v, fast, False, 20),
        "1.3B v2v 2 steps, no kernels": (v2v, PLAIN, True, 20),
        "1.3B v2v 2 steps, no kernels, no graphs": (v2v, PLAIN, False, 20),
        "1.3B t2v 4+1 steps, no graphs": (t2v, fast, False, 25),
    }


def _stream(
    case: StreamCase,
    operations: Operations,
    records: bool,
    backend: Backend,
    peaks: Any,
    until_s: float,
) -> dict[str, Any]:
    """Speed of one stream, its share of the limit, memory, and what its time goes into."""
    is_cuda = backend.device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    runner = Replayed(CudaRecorder()) if records and is_cuda else AsWritten()
    model = random_model(case.model, device=backend.device, dtype=backend.dtype)
    stream = MeasuredStream(
        case, model, operations=operations, runner=runner, device=backend.device,
        dtype=backend.dtype,
    )  # fmt: skip
    window = case.sinks + case.ring
    found: dict[str, Any] = stream.run(
        warm_up=(4 if is_cuda else 1) * window // case.chunk_frames,
        chunks=60 if is_cuda else 4,
        until_s=until_s,
    )
    tokens = stream.grid.num_tokens
    work = forward_work(
        model, rows=1, query_tokens=tokens * case.chunk_frames, window_tokens=tokens * window
    )
    limit_s = work.limit_s(peaks) * stream.recipe.num_passes
    found |= {
        "limit_frames_per_second": stream.frames_a_chunk / limit_s,
        "fraction_of_limit": limit_s / (1e-3 * found["chunk_ms"]),
        "dit_tflops_reached": work.flops * stream.recipe.num_passes / found["chunk_ms"] / 1e9,
        "peak_memory_gb": backend.peak_memory_bytes() / 1e9,
        "kv_cache_gb": stream.cache_bytes / 1e9,
        "settings": {
            "size": f"{case.width}x{case.height}", "passes": stream.recipe.num_passes,
            "chunk_frames": case.chunk_frames, "window": window, "codec": "taehv",
            "operations": operations.name, "graphs": isinstance(runner, Replayed),
            "linears": case.linears.value,
        },
        "profile_ms_a_chunk": _profile(stream, is_cuda),
    }  # fmt: skip
    return found


def _profile(stream: MeasuredStream, is_cuda: bool) -> dict[str, float]:
    """The ten kernels (on a CPU: operations) that take most of a chunk."""
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU
    chunks = 2
    with profile(activities=[activity]) as taken:
        for _ in range(chunks):
            stream.next_clip()
    averages = taken.key_averages()
    times = {
        one.key[:70]: (one.self_device_time_total if is_cuda else one.self_cpu_time_total)
        for one in averages
    }
    most = sorted(times.items(), key=lambda item: -item[1])[:10]
    return {name: round(us / 1e3 / chunks, 4) for name, us in most}


def _timer(backend: Backend) -> Callable[[Callable[[], object]], float]:
    """Median seconds of one call among many, launched back to back on a GPU."""

    repeats = REPEATS if backend.device.type == "cuda" else 1

    def seconds(run: Callable[[], object]) -> float:
        for _ in range(3):
            run()
        times: list[float] = []
        for _ in range(5):
            backend.synchronise()
            began_s = time.perf_counter()
            for _ in range(repeats):
                run()
            backend.synchronise()
            times.append((time.perf_counter() - began_s) / repeats)
        return sorted(times)[len(times) // 2]

    return seconds


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return "not installed"
    return triton.__version__


def _write(found: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    json_path, table_path = (out.with_name(out.name + ending) for ending in (".json", ".md"))
    json_path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = _markdown(found)
    table_path.write_text(text, encoding="utf-8")
    print(text)


def _markdown(found: dict[str, Any]) -> str:
    machine, peaks = found["machine"], found["peaks"]
    lines = [
        f"# {machine['device']}, commit {machine['commit'] or 'unknown'}, {machine['date']}", "",
        *(["A rehearsal on tiny sizes: the figures mean nothing.", ""] * found["rehearsal"]),
        f"torch {machine['torch']}, Triton {machine['triton']}; measured peaks: "
        f"{peaks['tflops']:.4g} TFLOP/s, {peaks['gb_per_s']:.4g} GB/s.", "",
        "| stream | frames/s | chunk p50 / p99 ms | first frame s | limit frames/s | share | GB |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, one in found.items():
        if not isinstance(one, dict) or ("took_s" not in one and "left_out" not in one):
            continue
        if "frames_per_second" in one:
            lines.append(
                f"| {name} | {one['frames_per_second']:.1f} | {one['chunk_ms']:.1f} / "
                f"{one['chunk_p99_ms']:.1f} | {one['first_frame_s']:.2f} | "
                f"{one['limit_frames_per_second']:.0f} | {one['fraction_of_limit']:.2f} | "
                f"{one['peak_memory_gb']:.1f} |"
            )
        elif "left_out" in one or "failed" in one:
            lines.append(f"| {name} | {one.get('left_out') or one['failed']} | | | | | |")
    lines += [
        "",
        "| kernel | definition ms | kernel ms | gain | GB/s | error |",
        "|---|" + "---|" * 5,
    ]
    for name, one in found.get("kernels", {}).items():
        if isinstance(one, dict):
            lines.append(
                f"| {name} | {one['definition_ms']:.4f} | {one['kernel_ms']:.4f} | "
                f"{one['gain']:.2f} | {one['gb_per_s']:.0f} | {one['relative_error']:.1e} |"
            )
    for name, one in found.items():
        if name.startswith("attention "):
            lines += ["", f"| {name} | ms | TFLOP/s |", "|---|---|---|"]
            for who, what in one.items():
                if isinstance(what, dict):
                    lines.append(f"| {who} | {what['ms']:.4f} | {what['tflops']:.0f} |")
                elif isinstance(what, str):
                    lines.append(f"| {who} | {what.replace('|', '/')} | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

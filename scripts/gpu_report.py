"""Everything that only a GPU can tell, in one call of less than 8 minutes.

    python scripts/gpu_report.py --out benchmarks/gpu-h200
    python scripts/gpu_report.py --out benchmarks/gpu-h200 --parts kernels targets --minutes 4

Needs torch 2.11 or newer with CUDA, Triton, numpy and safetensors, and this repository. Kernels
against their definitions, the table of attentions, whole streams of 1.3B and 14B of random weights
at 480x832 (kernels, graphs, overlap, FP8 on and off), each beside the limit of this very chip, and
what the time goes into. Parts run in the order of their importance, each with a budget of its own;
OUT.json and OUT.md are written after each, so that a call which is killed leaves what it has found.
`--rehearse` runs the same on tiny sizes on any machine, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "scripts")]

from gpu_parts.rearrange import provide_einops  # noqa: E402

EINOPS = provide_einops()

import torch  # noqa: E402

from gpu_parts.kernel_table import Size, kernel_table  # noqa: E402
from gpu_parts.report import Found, Part, Report  # noqa: E402
from gpu_parts.spending import spending  # noqa: E402
from gpu_parts.streams import MeasuredStream, StreamCase, random_model  # noqa: E402
from streamgen.clock import MonotonicClock  # noqa: E402
from streamgen.engine.compile import CudaRecorder  # noqa: E402
from streamgen.engine.cuda_lanes import CudaInOrder, CudaLanes  # noqa: E402
from streamgen.engine.forward import AsWritten, Replayed  # noqa: E402
from streamgen.engine.lanes import InOrder  # noqa: E402
from streamgen.engine.recipe import CacheMode  # noqa: E402
from streamgen.models.quantised import Linears  # noqa: E402
from streamgen.models.wan.config import WanConfig  # noqa: E402
from streamgen.models.wan.tae import TAEW_21, TaeConfig  # noqa: E402
from streamgen.ops.attention_backends import AttentionShape, try_attentions  # noqa: E402
from streamgen.ops.backend import Backend, choose_operations  # noqa: E402
from streamgen.ops.operations import PLAIN  # noqa: E402
from streamgen.ops.quantise import KVFormat  # noqa: E402
from streamgen.ops.rope import TokenGrid  # noqa: E402
from streamgen.serving.bench.machine import Peaks, machine_facts, measure_peaks  # noqa: E402
from streamgen.serving.bench.work import forward_work  # noqa: E402

WAN_1_3B = WanConfig(16, 16, 1536, 8960, 256, 4096, 512, 12, 30, 2, 2, 1e-6)
WAN_14B = WanConfig(16, 16, 5120, 13824, 256, 4096, 512, 40, 40, 2, 2, 1e-6)
SMALL = WanConfig(16, 16, 64, 128, 32, 32, 8, 2, 2, 2, 2, 1e-6)
SMALL_TAE = TaeConfig(latent_channels=16, encoder_width=8, decoder_widths=(8, 8, 8, 8))
REPEATS = 20
GROUPS = ("kernels", "attention", "targets", "fp8", "graphs", "overlap", "plain")


def main() -> int:
    """Measure and write; exit code 2 without a GPU."""
    options = _parser().parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        print("gpu_report: torch sees no GPU; --rehearse runs tiny sizes without", file=sys.stderr)
        return 2
    clock = MonotonicClock()
    report = Report(options.out, clock, clock.now() + options.minutes * 60)
    device = torch.device("cpu" if options.rehearse else "cuda")
    dtype = torch.float32 if options.rehearse else torch.bfloat16
    backend = Backend(device, dtype, choose_operations(device, dtype))
    peaks = measure_peaks(backend, clock)
    report.found |= {
        "rehearsal": options.rehearse,
        "machine": machine_facts(backend) | {"einops": EINOPS, "triton": _triton()},
        "peaks": peaks.facts(),
        "operations": backend.operations.name,
        "parts_asked_for": options.parts,
        "minutes": options.minutes,
    }
    bench = Bench(backend, peaks, is_rehearsal=options.rehearse)
    report.run([part for part in bench.parts() if part.group in options.parts])
    print(options.out.with_name(options.out.name + ".md").read_text(encoding="utf-8"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="without ending")
    parser.add_argument("--minutes", type=float, default=7.5, metavar="M", help="at most; 7.5")
    parser.add_argument(
        "--parts", nargs="+", choices=GROUPS, default=GROUPS, metavar="PART",
        help=f"of {', '.join(GROUPS)}; all, in this order",
    )  # fmt: skip
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    return parser


@dataclass(frozen=True, slots=True)
class Variant:
    """A stream, and how its forwards are carried out."""

    group: str
    case: StreamCase
    budget_s: float
    has_kernels: bool = True
    has_graphs: bool = True
    overlaps: bool = True


class Bench:
    """Makes the parts; remembers which attention was fastest at which shape."""

    def __init__(self, backend: Backend, peaks: Peaks, *, is_rehearsal: bool) -> None:
        self._backend = backend
        self._peaks = peaks
        self._is_rehearsal = is_rehearsal
        self._attend = PLAIN.attention

    def parts(self) -> Iterator[Part]:
        """In the order of their importance."""
        yield Part("kernels", "kernels", 60, lambda until_s: self._kernels())
        for name, shape in _shapes(_grid(self._is_rehearsal), self._is_rehearsal).items():
            yield Part(
                "attention", f"attention {name}", 20, lambda until_s, s=shape: self._attention(s)
            )
        for name, one in _variants(self._is_rehearsal).items():
            yield Part(
                one.group, name, one.budget_s, lambda until_s, v=one: self._stream(v, until_s)
            )

    def _kernels(self) -> Found:
        heads = (2, 16) if self._is_rehearsal else (12, 128)
        size = Size(2, 1, _grid(self._is_rehearsal), *heads, 6)
        backend = self._backend
        return kernel_table(
            backend.operations, size, device=backend.device, dtype=backend.dtype,
            timer=_timer(backend),
        )  # fmt: skip

    def _attention(self, shape: AttentionShape) -> Found:
        backend = self._backend
        self._attend, trials = try_attentions(
            shape, device=backend.device, dtype=backend.dtype, clock=MonotonicClock(),
            synchronise=backend.synchronise,
        )  # fmt: skip
        return {
            "shape": {name: getattr(shape, name) for name in AttentionShape.__dataclass_fields__},
            "table": {
                trial.name: trial.reason
                if trial.seconds is None
                else {"ms": 1e3 * trial.seconds, "tflops": shape.flops / trial.seconds / 1e12}
                for trial in trials
            },
        }

    def _stream(self, variant: Variant, until_s: float) -> Found:
        """Speed of one stream, its share of the limit, memory, and what its time goes into."""
        backend, case = self._backend, variant.case
        is_cuda = backend.device.type == "cuda"
        if is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            lanes = CudaLanes(backend.device) if variant.overlaps else CudaInOrder(backend.device)
        else:
            lanes = InOrder(MonotonicClock())
        runner = Replayed(CudaRecorder()) if variant.has_graphs and is_cuda else AsWritten()
        operations = PLAIN
        if variant.has_kernels:
            operations = replace(backend.operations, attention=self._attend)
        model = random_model(case.model, device=backend.device, dtype=backend.dtype)
        stream = MeasuredStream(
            case, model, operations=operations, runner=runner, lanes=lanes, device=backend.device,
            dtype=backend.dtype,
        )  # fmt: skip
        window = case.sinks + case.ring
        found: Found = stream.run(
            warm_up=(4 if is_cuda else 1) * window // case.chunk_frames,
            chunks=100 if is_cuda else 4,
            until_s=until_s,
        )
        tokens = stream.grid.num_tokens
        work = forward_work(
            model, rows=1, query_tokens=tokens * case.chunk_frames, window_tokens=tokens * window
        )
        limit_s = work.limit_s(self._peaks) * stream.recipe.num_passes
        is_replayed = isinstance(runner, Replayed)
        return found | {
            "limit_frames_per_second": stream.frames_a_chunk / limit_s,
            "fraction_of_limit": limit_s / (1e-3 * found["chunk_ms"]),
            "dit_tflops_reached": work.flops * stream.recipe.num_passes / found["chunk_ms"] / 1e9,
            "dit_gb_per_s_reached": work.num_bytes * stream.recipe.num_passes
            / found["chunk_ms"] / 1e6,
            "peak_memory_gb": backend.peak_memory_bytes() / 1e9,
            "kv_cache_gb": stream.cache_bytes / 1e9,
            "settings": {
                "size": f"{case.width}x{case.height}", "passes": stream.recipe.num_passes,
                "chunk_frames": case.chunk_frames, "window": window, "codec": "taehv",
                "operations": operations.name, "graphs": is_replayed,
                "recordings": runner.num_recordings if is_replayed else 0,
                "overlap": variant.overlaps, "linears": case.linears.value, "kv": case.kv.value,
                "linears_replaced": stream.linears_replaced,
            },
            **spending(stream.next_clip, is_cuda=is_cuda, chunk_ms=found["chunk_ms"]),
        }  # fmt: skip


def _grid(is_rehearsal: bool) -> TokenGrid:
    return TokenGrid(2, 3) if is_rehearsal else TokenGrid(30, 52)


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


def _variants(is_rehearsal: bool) -> dict[str, Variant]:
    """The targets first, then what each means alone."""
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
    streams = {"1.3B v2v 2 steps": v2v, "1.3B t2v 4+1 steps": t2v, "14B v2v 2 steps": big}
    budgets_s = dict(zip(streams, (35.0, 40.0, 55.0), strict=True))
    targets = {name: Variant("targets", case, budgets_s[name]) for name, case in streams.items()}
    fp8 = {
        f"{name}, FP8": replace(one, group="fp8", case=replace(one.case, linears=Linears.FP8))
        for name, one in targets.items()
    }
    long = targets["1.3B t2v 4+1 steps"]
    fp8["1.3B t2v 4+1 steps, KV int8"] = replace(
        long, group="fp8", case=replace(long.case, kv=KVFormat.INT8)
    )
    small = {name: targets[name] for name in ("1.3B v2v 2 steps", "1.3B t2v 4+1 steps")}
    graphs = {
        f"{name}, no graphs": replace(one, group="graphs", has_graphs=False)
        for name, one in small.items()
    }
    overlap = {
        f"{name}, no overlap": replace(one, group="overlap", overlaps=False)
        for name, one in small.items()
    }
    first = targets["1.3B v2v 2 steps"]
    plain = {
        "1.3B v2v 2 steps, no kernels": replace(first, group="plain", has_kernels=False),
        "1.3B v2v 2 steps, nothing": replace(
            first, group="plain", has_kernels=False, has_graphs=False, overlaps=False
        ),
    }
    return targets | fp8 | graphs | overlap | plain


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


if __name__ == "__main__":
    sys.exit(main())

"""The GPU report runs whole where there is no GPU, on tiny sizes, and says that it did."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import einops
import pytest
import torch

from gpu_parts.rearrange import rearrange
from gpu_parts.report import Part, Report
from gpu_parts.spending import kind_of
from gpu_parts.streams import MeasuredStream, random_model
from gpu_report import GROUPS, _variants
from streamgen.clock import MonotonicClock, SimulatedClock
from streamgen.engine.forward import AsWritten
from streamgen.engine.lanes import InOrder
from streamgen.ops.operations import PLAIN

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
PATTERNS = [
    ((2, 12, 5), "b (f h w) c -> b f c h w", {"f": 1, "h": 3, "w": 4}),
    ((2, 8, 1, 3, 4), "b d f h w -> b (f h w) d", {}),
    ((1, 6, 16), "b (f h w) (p q c) -> b f c (h p) (w q)", {"h": 2, "w": 3, "p": 2, "q": 2}),
]


@pytest.mark.parametrize(("shape", "pattern", "sizes"), PATTERNS)
def test_the_carried_rearrange_is_that_of_einops(shape, pattern, sizes) -> None:
    x = torch.arange(torch.Size(shape).numel()).reshape(shape)
    assert torch.equal(rearrange(x, pattern, **sizes), einops.rearrange(x, pattern, **sizes))


def test_the_carried_rearrange_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        rearrange(torch.zeros(2, 7), "a (b c) -> a b c", b=2)


def rehearse(out: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gpu_report.py"), "--rehearse", "--out", str(out),
         *options],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.with_name(out.name + ".json").read_text())


def parts_of(found: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in found.items() if isinstance(one, dict) and "group" in one}


@pytest.mark.slow
def test_a_rehearsal_fills_every_part(tmp_path: Path) -> None:
    """No part fails or is left out, and both files say that figures mean nothing."""
    parts = parts_of(rehearse(tmp_path / "rehearsal"))
    assert {one["group"] for one in parts.values()} == set(GROUPS)
    assert len(parts) == 15
    assert not [name for name, one in parts.items() if "failed" in one or "left_out" in one]
    assert "mean nothing" in (tmp_path / "rehearsal.md").read_text()


@pytest.mark.slow
def test_parts_can_be_chosen_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    """Without time for a part, the file says which it was and what it would have taken."""
    parts = parts_of(rehearse(tmp_path / "x", "--parts", "fp8", "--minutes", "0.6"))
    assert {one["group"] for one in parts.values()} == {"fp8"}
    assert "it takes up to 55" in parts["14B v2v 2 steps, FP8"]["left_out"]


def test_every_part_is_written_before_the_next_one_begins(tmp_path: Path) -> None:
    """So a report that is killed leaves what it has found."""
    report = Report(tmp_path / "report", SimulatedClock(), 1e4)
    report.found |= {
        "rehearsal": False,
        "machine": dict.fromkeys(("device", "commit", "date", "torch", "triton"), ""),
        "peaks": {"tflops": 1.0, "gb_per_s": 1.0},
    }  # fmt: skip
    written: list[list[str]] = []

    def look(until_s: float) -> dict[str, Any]:
        path = tmp_path / "report.json"
        written.append(list(parts_of(json.loads(path.read_text()))) if path.exists() else [])
        if len(written) == 2:
            raise RuntimeError("the card is gone")
        return {}

    report.run([Part("targets", name, 10, look) for name in ("a", "b", "c")])
    assert written == [[], ["a"], ["a", "b"]]
    assert report.found["b"]["failed"] == "RuntimeError: the card is gone"
    assert "the card is gone" in (tmp_path / "report.md").read_text()


def test_a_stream_that_is_cut_off_says_how_far_it_came() -> None:
    case = next(iter(_variants(is_rehearsal=True).values())).case
    model = random_model(case.model, device=CPU, dtype=torch.float32)
    stream = MeasuredStream(
        case, model, operations=PLAIN, runner=AsWritten(), lanes=InOrder(MonotonicClock()),
        device=CPU, dtype=torch.float32,
    )  # fmt: skip
    assert stream.run(warm_up=0, chunks=50, until_s=0.0)["cut_off"] == "2 chunks"
    with pytest.raises(TimeoutError, match="1 of 3 chunks of warm-up"):
        stream.run(warm_up=3, chunks=50, until_s=0.0)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_TNN", "matrix products"),
        ("sm80_xmma_fprop_implicit_gemm_bf16", "convolutions"),
        ("_norm_modulate", "our kernels"),
        ("Memcpy DtoH (Device -> Pinned)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", "other kernels"),
    ],
)
def test_kernels_are_sorted_by_what_they_do(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gpu_report.py"), "--out", str(tmp_path / "x")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gpu_report: torch sees no GPU; --rehearse runs tiny sizes without"
    ]

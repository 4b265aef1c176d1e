"""The GPU report runs whole where there is no GPU, on tiny sizes, and says that it did."""

import json
import subprocess
import sys
from pathlib import Path

import einops
import pytest
import torch

from gpu_parts.rearrange import rearrange

ROOT = Path(__file__).resolve().parents[3]
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


@pytest.mark.slow
def test_a_rehearsal_fills_every_part(tmp_path: Path) -> None:
    """No part fails or is left out, and both files say that figures mean nothing."""
    out = tmp_path / "rehearsal"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gpu_report.py"), "--rehearse", "--out", str(out)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "rehearsal.json").read_text())
    parts = {name: one for name, one in found.items() if isinstance(one, dict) and "took_s" in one}
    assert len(parts) == 12
    assert not [name for name, one in parts.items() if "failed" in one or "left_out" in one]
    assert "mean nothing" in (tmp_path / "rehearsal.md").read_text()


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

"""Full-size Wan 2.1 1.3B with random weights on a CPU: does it load within its size, does it run?

    python scripts/bench_wan_cpu.py --folder /tmp/wan --output benchmarks/wan-1.3b-cpu.json

Writes a checkpoint of the published size and names (5.7 GB, float32), loads it in a process of its
own whose peak memory is measured, then makes one text-to-video chunk of a small picture through the
Self-Forcing preset in another. Text encoder and codec are small random ones for loading's sake: the
text encoder's 11 GB in bfloat16 and the DiT's own size are two matters. Values are random, so the
picture means nothing; what is shown is that nothing overflows, and how long it takes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.memory import dit_params
from streamgen.models.wan.sizes import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
CONFIG = PUBLISHED["1.3B"]
PICTURE = (64, 96)  # pixels
TEXT_LAYERS = 2
PROMPT = "a red ball over the sea"
LOAD_LIMIT = 1.15  # peak while loading over the weights
MEMORY_LIMIT_BYTES = 24e9


def main() -> int:
    parser = argparse.ArgumentParser(description="1.3B random weights in float32 on a CPU")
    parser.add_argument("--folder", type=Path, required=True, help="where 6.5 GB may be written")
    parser.add_argument("--output", type=Path, help="JSON record to write")
    parser.add_argument("--part", choices=("load", "chunk"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        print(
            json.dumps(_load(options.folder) if options.part == "load" else _chunk(options.folder))
        )
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    _write(options.folder)
    record = {
        "what": "Wan 2.1 1.3B, random weights, float32, on a CPU",
        "commit": _commit(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "picture": f"{PICTURE[1]}x{PICTURE[0]}",
        "load": _apart(options.folder, "load"),
        "chunk": _apart(options.folder, "chunk"),
    }
    load, chunk = record["load"], record["chunk"]
    record["passes"] = bool(
        load["peak_over_weights"] <= LOAD_LIMIT
        and chunk["peak_bytes"] <= MEMORY_LIMIT_BYTES
        and chunk["frames"] == 9
    )
    text = json.dumps(record, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0 if record["passes"] else 1


def _write(folder: Path) -> None:
    """The DiT in the published names, and a small text encoder of UMT5-XXL's width, and a VAE."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    generator = torch.Generator().manual_seed(0)
    if not (folder / "dit.safetensors").exists():
        with torch.device("meta"):
            shapes = {name: one.shape for name, one in WanDiT(CONFIG).state_dict().items()}
        state = {name: _random(name, shape, generator) for name, shape in shapes.items()}
        save_file(state, folder / "dit.safetensors")
        del state
    vae = AutoencoderKLWan()
    save_file(vae.state_dict(), folder / "vae.safetensors")
    config = UMT5Config(
        vocab_size=64, d_model=CONFIG.text_dim, d_kv=64, d_ff=1024, num_layers=TEXT_LAYERS,
        num_heads=8, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    text = UMT5EncoderModel(config).state_dict()
    text.pop("encoder.embed_tokens.weight", None)
    save_file({name: one.clone() for name, one in text.items()}, folder / "text.safetensors")
    _write_tokenizer(folder / "tokenizer")


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")):
        return torch.ones(shape)
    scale = 0.02 if len(shape) > 1 else 0.0
    return torch.randn(shape, generator=generator) * scale


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace

    folder.mkdir(exist_ok=True)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in sorted(set(PROMPT.split()))]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def _load(folder: Path) -> dict[str, float]:
    """Load the DiT alone; what was resident before it is taken off the peak."""
    from streamgen.models.loading import load_dit

    _forget_peak()
    before = _peak_bytes()
    began_s = time.perf_counter()
    dit = load_dit(
        folder / "dit.safetensors", device=torch.device("cpu"), dtype=torch.float32, config=CONFIG
    )
    seconds = time.perf_counter() - began_s
    weights = sum(one.nbytes for one in dit.state_dict().values())
    assert weights == 4 * dit_params(CONFIG)
    added = _peak_bytes() - before
    return {
        "weights_bytes": weights,
        "peak_added_bytes": added,
        "peak_over_weights": round(added / weights, 4),
        "seconds": round(seconds, 1),
    }


def _chunk(folder: Path) -> dict[str, float]:
    """One chunk through the preset: build, first frame, all of it."""
    from streamgen import Stream

    overrides = (
        f"model.weights={folder / 'dit.safetensors'}",
        f"wan.vae_weights={folder / 'vae.safetensors'}",
        f"wan.text_weights={folder / 'text.safetensors'}",
        f"wan.tokenizer={folder / 'tokenizer'}",
        "wan.size=any",
        "wan.state_dict=",
        f"picture.height={PICTURE[0]}",
        f"picture.width={PICTURE[1]}",
        "model.device=cpu",
        "model.dtype=float32",
    )
    _forget_peak()
    began_s = time.perf_counter()
    with Stream("self-forcing-1.3b", prompt=PROMPT, max_frames=9, overrides=overrides) as stream:
        built_s = time.perf_counter()
        frames = [frame.pixels for frame in stream]
        done_s = time.perf_counter()
    return {
        "frames": len(frames),
        "build_seconds": round(built_s - began_s, 1),
        "chunk_seconds": round(done_s - built_s, 1),
        "peak_bytes": _peak_bytes(),
        "picture_std": round(float(torch.tensor(frames[-1]).float().std()), 2),
    }


def _apart(folder: Path, part: str) -> dict[str, float]:
    """A part in a process of its own, so that its peak is its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--part", part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _forget_peak() -> None:
    """Begin to watch memory anew: a process inherits the peak of the one that started it."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes() -> int:
    """Largest resident memory since `_forget_peak`, file pages that are mapped included."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

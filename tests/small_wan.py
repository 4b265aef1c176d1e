"""A whole small Wan model in the files and names in which the large ones are published."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from streamgen.models.wan.names import to_diffusers
from streamgen.models.wan.text_names import to_published
from streamgen.models.wan.vae_names import original_name
from tests.checkpoint_files import SMALL, prefixed, random_weights
from tests.small_codecs import SMALL_VAE, randomise, small_tae, small_vae

DIT = replace(SMALL, text_dim=32, num_blocks=2)
WORDS = ("a", "ball", "blue", "cat", "night", "red", "sea", "star", "storm", "the", "at", "over")
LAST = WORDS[-1]
PICTURE = ("picture.height=32", "picture.width=48", "model.num_threads=1", "model.device=cpu")


@dataclass(frozen=True, slots=True)
class SmallWan:
    """Paths of the parts, as a user would name them."""

    dit: Path
    vae: Path
    taehv: Path
    text: Path
    tokenizer: Path

    def overrides(self, *more: str) -> tuple[str, ...]:
        """Settings that put these files into a preset of a large model."""
        return (
            f"model.weights={self.dit}",
            "wan.size=any",
            f"wan.vae_weights={self.vae}",
            f"wan.taehv_weights={self.taehv}",
            f"wan.text_weights={self.text}",
            f"wan.tokenizer={self.tokenizer}",
            *PICTURE,
            *more,
        )


def small_umt5(*, num_layers: int = 2) -> Any:
    """transformers' encoder with random weights, always the same ones."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=64,
        d_model=DIT.text_dim,
        d_kv=8,
        d_ff=48,
        num_layers=num_layers,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UMT5EncoderModel(config)
    randomise(network, seed=4)
    return network.eval()


def umt5_state(network: Any) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    state.pop("encoder.embed_tokens.weight", None)
    return {name: tensor.clone() for name, tensor in state.items()}


def write_tokenizer(folder: Path) -> Path:
    """One token a word, the end token behind them, in the files of google/umt5-xxl."""
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.processors import TemplateProcessing

    folder.mkdir(parents=True, exist_ok=True)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in WORDS]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_published(folder: Path) -> SmallWan:
    """A training checkpoint's .pt, Wan2.1_VAE.pth, the T5 file with its tokenizer, taew2_1."""
    state = random_weights(0, DIT)
    dit = folder / "self_forcing_dmd.pt"
    wrapped = prefixed(state, "model.")
    torch.save({"generator": wrapped, "generator_ema": wrapped}, dit)
    vae = folder / "Wan2.1_VAE.pth"
    names = small_vae().state_dict()
    blocks = SMALL_VAE.num_res_blocks
    torch.save(
        {original_name(name, num_res_blocks=blocks): tensor for name, tensor in names.items()}, vae
    )
    text = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save({to_published(name): t for name, t in umt5_state(small_umt5()).items()}, text)
    return SmallWan(dit, vae, _write_tae(folder), text, write_tokenizer(folder / "google/umt5-xxl"))


def write_diffusers(folder: Path) -> SmallWan:
    """The same weights in the folders of a diffusers repository."""
    for name in ("transformer", "vae", "text_encoder"):
        (folder / name).mkdir()
    state = {to_diffusers(name): tensor for name, tensor in random_weights(0, DIT).items()}
    save_file(state, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file(small_vae().state_dict(), folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(umt5_state(small_umt5()), folder / "text_encoder" / "model.safetensors")
    tokenizer = write_tokenizer(folder / "tokenizer")
    return SmallWan(folder, folder, _write_tae(folder), folder, tokenizer)


def _write_tae(folder: Path) -> Path:
    (folder / "tae").mkdir()
    file = folder / "tae" / "taew2_1.pth"
    torch.save(small_tae().state_dict(), file)
    return file

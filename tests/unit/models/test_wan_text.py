"""UMT5: equal to transformers' own run, from both layouts; what is wrong is named.

Shapes: M tokens, D features.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.wan.text import TextPlace, Umt5TextEncoder, cleaned, load_text_encoder
from streamgen.models.wan.text_names import UMT5_XXL, to_published, to_transformers
from tests.checkpoint_files import write_shards
from tests.small_wan import WORDS, small_umt5, umt5_state, write_tokenizer

CPU = torch.device("cpu")
TOLERANCE = 2e-6  # float32: a padded and an unpadded run round differently
TEXT_LEN = 512


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("umt5") / "tokenizer")


def load(weights: Path, tokenizer: Path | None, dtype: torch.dtype = torch.float32):
    return load_text_encoder(weights, tokenizer, place=TextPlace.HOST, device=CPU, dtype=dtype)


def write_pth(folder: Path, state: dict[str, Tensor] | None = None) -> Path:
    file = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    own = umt5_state(small_umt5()) if state is None else state
    torch.save({to_published(name): tensor for name, tensor in own.items()}, file)
    return file


def padded_reference(ids: list[int]) -> Tensor:
    """What the reference does: padded to 512, the padding masked, then what came out of it cut."""
    padded_1M = torch.tensor([ids + [0] * (TEXT_LEN - len(ids))])
    with torch.inference_mode():
        encoded = small_umt5()(input_ids=padded_1M, attention_mask=padded_1M.gt(0).long())
    return encoded.last_hidden_state[0, : len(ids)]


@pytest.mark.parametrize("layout", ["published", "diffusers", "diffusers, sharded"])
def test_features_equal_those_of_transformers(tmp_path: Path, tokenizer: Path, layout: str) -> None:
    weights = tmp_path / "text_encoder"
    if layout == "published":
        weights = write_pth(tmp_path)
    elif layout == "diffusers":
        weights.mkdir()
        save_file(umt5_state(small_umt5()), weights / "model.safetensors")
    else:
        write_shards(weights, umt5_state(small_umt5()))
    features_MD = load(weights, tokenizer).encode("a red  ball")
    ids = [3 + WORDS.index(word) for word in ("a", "red", "ball")] + [1]
    assert features_MD.shape == (4, 32)
    torch.testing.assert_close(features_MD, padded_reference(ids), atol=TOLERANCE, rtol=0)


def test_at_most_512_tokens_are_read(tmp_path: Path, tokenizer: Path) -> None:
    encoder = load(write_pth(tmp_path), tokenizer)
    features_MD = encoder.encode("red " * 600)
    assert len(features_MD) == TEXT_LEN
    assert torch.equal(features_MD, encoder.encode("red " * 511))


def test_the_tokenizer_is_found_beside_the_weights(tmp_path: Path) -> None:
    write_pth(tmp_path)
    with pytest.raises(CheckpointError, match=r"no tokenizer beside it .*; set wan\.tokenizer"):
        load(tmp_path, None)
    write_tokenizer(tmp_path / "google" / "umt5-xxl")
    assert isinstance(load(tmp_path, None), Umt5TextEncoder)


def test_prompts_are_cleaned_as_in_training() -> None:
    assert cleaned(" a\u00a0cat &amp;amp;\n\tdog  ") == "a cat & dog"
    assert cleaned("schÃ¶n") == "schön"


def test_a_weight_that_is_missing_or_of_another_shape_is_named(
    tmp_path: Path, tokenizer: Path
) -> None:
    state = umt5_state(small_umt5())
    name = "encoder.block.1.layer.0.SelfAttention.k.weight"
    file = write_pth(tmp_path, {key: one for key, one in state.items() if key != name})
    with pytest.raises(CheckpointError, match=rf"enc-bf16\.pth: {name} is missing"):
        load(file, tokenizer)
    file = write_pth(tmp_path, state | {name: torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attn\.k\.weight is \(3, 3\), the enc"):
        load(file, tokenizer)
    file = write_pth(tmp_path, state | {name: torch.full((32, 32), float("inf"))})
    with pytest.raises(CheckpointError, match=r"attn\.k\.weight holds NaN or infinity"):
        load(file, tokenizer)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    state = umt5_state(small_umt5())
    small = {name: one[:8] if name == "shared.weight" else one for name, one in state.items()}
    with pytest.raises(CheckpointError, match=r"has 15 tokens, .* knows 8"):
        load(write_pth(tmp_path, small), tokenizer)
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="the tokenizer cannot be read"):
        load(write_pth(tmp_path), folder)


def test_half_precision_files_are_read_without_overflow(tmp_path: Path, tokenizer: Path) -> None:
    """T5's activations leave the range of float16, so it is widened to bfloat16."""
    halves = {name: tensor.half() for name, tensor in umt5_state(small_umt5()).items()}
    features_MD = load(write_pth(tmp_path, halves), tokenizer, torch.float32).encode("a cat")
    assert features_MD.dtype is torch.float32
    assert bool(features_MD.isfinite().all())


def test_weights_that_rest_on_the_host_give_the_same_features(tmp_path: Path) -> None:
    """accelerate brings each block to the device and takes it away again."""
    from streamgen.models.wan.text import _offload

    resting, staying = small_umt5(), small_umt5()
    _offload([*resting.encoder.block, resting.encoder.final_layer_norm], CPU)
    assert all(weight.is_meta for weight in resting.encoder.block.parameters())
    embedded_1MD = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = (
            network.encoder(inputs_embeds=embedded_1MD).last_hidden_state
            for network in (resting, staying)
        )
    assert torch.equal(one, other)


def test_published_names_go_there_and_back() -> None:
    for name in umt5_state(small_umt5()):
        assert to_transformers(to_published(name)) == name
    assert UMT5_XXL.num_params == 5_680_910_336  # what transformers counts for google/umt5-xxl

"""The Wan VAE: equal to diffusers' own calls, both namings, both normalisations, clear refusals.

Shapes: B = 1 clip, T pixel frames, F latent frames, C channels, H W height and width.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from streamgen.errors import CheckpointError, ConfigError
from streamgen.models.wan.vae import WanVae, load_vae
from streamgen.models.wan.vae_config import WAN_21_VAE, LatentNorm, VaeConfig
from streamgen.models.wan.vae_names import diffusers_name, original_name
from tests.small_codecs import (
    CPU,
    SMALL_VAE,
    random_latents,
    random_pixels,
    randomise,
    small_vae,
)

TOLERANCE = 1e-5  # float32
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "E_vae_weights"


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def diffusers_network(config: VaeConfig = SMALL_VAE) -> Any:
    """diffusers' autoencoder with the weights of `small_vae`."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    network = AutoencoderKLWan(base_dim=config.base_dim)
    randomise(network, seed=2)
    return network.eval()


def load(tensors: dict[str, Tensor], config: VaeConfig = SMALL_VAE) -> WanVae:
    return load_vae(
        tensors,
        source="vae.pth",
        config=config,
        norm=LatentNorm.STANDARD,
        device=CPU,
        dtype=torch.float32,
    )


def small_tensors() -> dict[str, Tensor]:
    return diffusers_network().state_dict()


def recorded_tensors() -> dict[str, Tensor]:
    """A small checkpoint with the names of Wan2.1_VAE.pth."""
    stored = load_file(GOLDEN / "tensors.safetensors")
    return {name: tensor.float() for name, tensor in stored.items()}


def recorded_config() -> VaeConfig:
    sizes = json.loads((GOLDEN / "meta.json").read_text(encoding="utf-8"))["config"]
    return replace(
        WAN_21_VAE,
        base_dim=sizes["dim"],
        latent_channels=sizes["z_dim"],
        dim_mult=tuple(sizes["dim_mult"]),
        num_res_blocks=sizes["num_res_blocks"],
        temporal_downsample=tuple(sizes["temperal_downsample"]),
    )


def raw_mean(network: Any, pixels_TCHW: Tensor) -> Tensor:
    """diffusers' one-shot encode: the posterior's mean, FCHW, not normalised."""
    posterior = network.encode(rearrange(pixels_TCHW, "t c h w -> 1 c t h w")).latent_dist
    return rearrange(posterior.mode(), "1 c f h w -> f c h w")


def columns(config: VaeConfig) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the latents, C11."""
    mean_C, std_C = torch.tensor(config.latent_mean), torch.tensor(config.latent_std)
    return mean_C[:, None, None], std_C[:, None, None]


@pytest.mark.parametrize("cuts", [[13], [1, 4, 4, 4], [5, 8], [1, 12]])
def test_encoding_in_pieces_equals_one_call_of_diffusers(cuts: list[int]) -> None:
    vae, network = small_vae(), diffusers_network()
    pixels_TCHW = random_pixels(sum(cuts), vae.facts, seed=0)
    mean_C11, std_C11 = columns(SMALL_VAE)
    expected_FCHW = (raw_mean(network, pixels_TCHW) - mean_C11) / std_C11

    state, parts = vae.initial_state(), []
    for part in pixels_TCHW.split(cuts):
        latents_FCHW, state = vae.encode(part, state)
        parts.append(latents_FCHW)
    torch.testing.assert_close(torch.cat(parts), expected_FCHW, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("cuts", [[4], [1, 1, 1, 1], [2, 2], [1, 3]])
def test_decoding_in_pieces_equals_one_call_of_diffusers(cuts: list[int]) -> None:
    vae, network = small_vae(), diffusers_network()
    latents_FCHW = random_latents(sum(cuts), vae.facts, seed=1)
    mean_C11, std_C11 = columns(SMALL_VAE)
    encoded_BCFHW = rearrange(latents_FCHW * std_C11 + mean_C11, "f c h w -> 1 c f h w")
    expected_TCHW = rearrange(network.decode(encoded_BCFHW).sample, "1 c t h w -> t c h w")

    state, parts = vae.initial_state(), []
    for part in latents_FCHW.split(cuts):
        pixels_TCHW, state = vae.decode(part, state)
        parts.append(pixels_TCHW)
    assert [len(part) for part in parts] == [4 * cuts[0] - 3, *(4 * cut for cut in cuts[1:])]
    torch.testing.assert_close(torch.cat(parts), expected_TCHW, atol=TOLERANCE, rtol=0)


def test_raw_encode_leaves_out_the_normalisation_that_decode_undoes() -> None:
    """What StreamDiffusionV2 was trained under; decode is the same as ever."""
    raw, standard = small_vae(LatentNorm.RAW_ENCODE), small_vae(LatentNorm.STANDARD)
    pixels_TCHW = random_pixels(5, raw.facts, seed=2)
    latents_FCHW, _ = raw.encode(pixels_TCHW, raw.initial_state())
    torch.testing.assert_close(
        latents_FCHW, raw_mean(diffusers_network(), pixels_TCHW), atol=TOLERANCE, rtol=0
    )
    decoded_TCHW, _ = raw.decode(latents_FCHW, raw.initial_state())
    same_TCHW, _ = standard.decode(latents_FCHW, standard.initial_state())
    assert torch.equal(decoded_TCHW, same_TCHW)


def test_published_numbers_are_those_of_diffusers() -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        published = AutoencoderKLWan().config
    assert list(WAN_21_VAE.latent_mean) == published["latents_mean"]
    assert list(WAN_21_VAE.latent_std) == published["latents_std"]
    assert WAN_21_VAE.base_dim == published["base_dim"]
    assert list(WAN_21_VAE.dim_mult) == published["dim_mult"]
    assert list(WAN_21_VAE.temporal_downsample) == published["temperal_downsample"]


def test_original_names_lead_to_the_weights_that_diffusers_converts_them_to() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    vae = load(recorded_tensors(), recorded_config())
    expected = convert_wan_vae_to_diffusers(recorded_tensors())
    own = vae.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], expected[name]) for name in own)


def test_both_namings_of_one_checkpoint_make_the_same_pictures() -> None:
    config = recorded_config()
    original = load(recorded_tensors(), config)
    diffusers = load(original.state_dict(), config)
    latents_FCHW = random_latents(2, original.facts, seed=3)
    pixels_TCHW, _ = original.decode(latents_FCHW, original.initial_state())
    same_TCHW, _ = diffusers.decode(latents_FCHW, diffusers.initial_state())
    assert torch.equal(pixels_TCHW, same_TCHW)


@pytest.mark.parametrize("num_res_blocks", [1, 2, 3])
def test_names_translate_there_and_back(num_res_blocks: int) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        names = AutoencoderKLWan(base_dim=4, num_res_blocks=num_res_blocks).state_dict().keys()
    originals = {original_name(name, num_res_blocks=num_res_blocks): name for name in names}
    assert len(originals) == len(names)
    assert originals == {
        original: diffusers_name(original, num_res_blocks=num_res_blocks) for original in originals
    }


def test_loading_makes_no_second_copy_where_the_type_is_right() -> None:
    tensors = small_tensors()
    loaded = load(tensors).state_dict()
    assert all(loaded[name].data_ptr() == tensor.data_ptr() for name, tensor in tensors.items())


def test_a_vae_runs_in_bfloat16() -> None:
    vae = load_vae(
        small_tensors(),
        source="vae.pth",
        config=SMALL_VAE,
        norm=LatentNorm.STANDARD,
        device=CPU,
        dtype=torch.bfloat16,
    )
    pixels_TCHW = random_pixels(5, vae.facts, seed=4).bfloat16()
    latents_FCHW, state = vae.encode(pixels_TCHW, vae.initial_state())
    decoded_TCHW, _ = vae.decode(latents_FCHW, state)
    assert latents_FCHW.dtype == decoded_TCHW.dtype == torch.bfloat16


def test_a_missing_tensor_is_named_as_the_file_names_it() -> None:
    tensors = recorded_tensors()
    del tensors["decoder.upsamples.3.time_conv.weight"]
    with pytest.raises(
        CheckpointError, match=r"vae\.pth: decoder\.upsamples\.3\.time_conv\.weight is missing"
    ):
        load(tensors, recorded_config())


def test_an_unexpected_tensor_is_named() -> None:
    extra = {"encoder.middle.7.extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"encoder\.middle\.7\.extra is unexpected"):
        load(recorded_tensors() | extra, recorded_config())
    with pytest.raises(CheckpointError, match=r"encoder\.middle\.7\.extra is unexpected"):
        load(small_tensors() | extra)


def test_a_checkpoint_of_another_size_says_both_shapes() -> None:
    with pytest.raises(CheckpointError, match=r"vae\.pth: .* is \(.*\), the model needs \(.*Wan"):
        load(recorded_tensors(), replace(SMALL_VAE, base_dim=4))


def test_a_quantised_tensor_is_refused() -> None:
    tensors = small_tensors()
    tensors["quant_conv.weight"] = tensors["quant_conv.weight"].to(torch.int8)
    with pytest.raises(CheckpointError, match=r"quant_conv\.weight is .*int8"):
        load(tensors)


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("decoder.1.weight", "tiny autoencoder"),
        ("model.blocks.0.modulation", "diffusion transformer"),
        ("something.else", "its first tensor is something.else"),
    ],
)
def test_a_file_of_another_kind_is_recognised(name: str, guess: str) -> None:
    with pytest.raises(CheckpointError, match=guess):
        load({name: torch.zeros(1)})


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match="it holds no tensors"):
        load({})


def test_without_diffusers_the_command_that_installs_it_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensors = small_tensors()
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.autoencoder_kl_wan", None)
    with pytest.raises(ConfigError, match=r'pip install ".*diffusers'):
        load(tensors)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="temporal_downsample has 1 entries"):
        replace(WAN_21_VAE, temporal_downsample=(True,))
    with pytest.raises(ValueError, match="16 latent channels, 1 means"):
        replace(WAN_21_VAE, latent_mean=(0.0,))

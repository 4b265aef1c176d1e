"""Codecs from files as they are published: .pth, .safetensors, folders of whole models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streamgen.errors import CheckpointError
from streamgen.models.wan.codec_files import load_tae_file, load_vae_file
from streamgen.models.wan.vae import WanVae
from streamgen.models.wan.vae_config import LatentNorm
from streamgen.models.wan.vae_names import original_name
from tests.small_codecs import CPU, SMALL_TAE, SMALL_VAE, small_tae, small_vae


def load_vae_here(path: Path) -> WanVae:
    return load_vae_file(
        path, norm=LatentNorm.STANDARD, device=CPU, dtype=torch.float32, config=SMALL_VAE
    )


def published(vae: WanVae) -> dict[str, Tensor]:
    """Its weights as Wan2.1_VAE.pth names them."""
    return {
        original_name(name, num_res_blocks=SMALL_VAE.num_res_blocks): tensor
        for name, tensor in vae.state_dict().items()
    }


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_vae_is_found_in_the_published_folder(tmp_path: Path) -> None:
    vae = small_vae()
    torch.save(published(vae), tmp_path / "Wan2.1_VAE.pth")
    save_file({"patch_embedding.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert_same_weights(load_vae_here(tmp_path), vae)
    assert_same_weights(load_vae_here(tmp_path / "Wan2.1_VAE.pth"), vae)


def test_a_vae_is_found_in_diffusers_layout(tmp_path: Path) -> None:
    vae = small_vae()
    (tmp_path / "vae").mkdir()
    (tmp_path / "transformer").mkdir()
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(vae.state_dict(), file)
    for path in (tmp_path, tmp_path / "vae", file):
        assert_same_weights(load_vae_here(path), vae)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_tiny_autoencoder_loads_from_both_formats(tmp_path: Path, ending: str) -> None:
    tae, file = small_tae(), tmp_path / f"taew2_1.{ending}"
    if ending == "pth":
        torch.save(tae.state_dict(), file)
    else:
        save_file(tae.state_dict(), file)
    loaded = load_tae_file(file, device=CPU, dtype=torch.float32, config=SMALL_TAE)
    assert_same_weights(loaded, tae)


def test_a_file_of_another_kind_is_called_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "tae.safetensors"
    save_file(small_tae().state_dict(), file)
    with pytest.raises(CheckpointError, match=r"tae\.safetensors: is not a Wan VAE but a tiny"):
        load_vae_here(file)
    other = tmp_path / "vae.safetensors"
    save_file({"something": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match="but of unknown contents"):
        load_tae_file(other, device=CPU, dtype=torch.float32, config=SMALL_TAE)


def test_a_missing_tensor_names_file_and_key(tmp_path: Path) -> None:
    tensors = published(small_vae())
    del tensors["decoder.upsamples.7.time_conv.bias"]
    torch.save(tensors, tmp_path / "vae.pth")
    with pytest.raises(
        CheckpointError, match=r"vae\.pth: decoder\.upsamples\.7\.time_conv\.bias is missing"
    ):
        load_vae_here(tmp_path / "vae.pth")


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    tensors = published(small_vae())
    tensors["conv1.bias"][0] = float("nan")
    torch.save(tensors, tmp_path / "vae.pth")
    with pytest.raises(CheckpointError, match=r"vae\.pth: conv1\.bias holds NaN"):
        load_vae_here(tmp_path / "vae.pth")

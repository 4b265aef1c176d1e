"""Published layouts load to equal bits; only a stage's blocks are read; memory stays bounded."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from streamgen.errors import CheckpointError
from streamgen.models.checkpoint_kinds import Kind, Naming
from streamgen.models.loading import describe, load_dit
from streamgen.models.wan.config import WanConfig
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.sizes import difference
from tests.checkpoint_files import (
    LAYOUTS,
    SMALL,
    State,
    in_diffusers_names,
    prefixed,
    random_weights,
    write_torch,
)

CPU = torch.device("cpu")
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "dit_weights_tiny"


def load(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    config: WanConfig | None = None,
    blocks: range | None = None,
    wrapper: str | None = None,
) -> WanDiT:
    return load_dit(path, device=CPU, dtype=dtype, config=config, blocks=blocks, wrapper=wrapper)


def assert_holds(dit: WanDiT, state: State) -> None:
    loaded = dit.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name


@pytest.fixture(scope="module")
def state() -> State:
    return random_weights(0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_gives_the_same_bits(
    layout: str, tmp_path: Path, state: State
) -> None:
    path = LAYOUTS[layout](tmp_path, state)
    dit = load(path, config=SMALL)
    assert_holds(dit, state)
    assert not any(parameter.requires_grad for parameter in dit.parameters())
    assert not dit.training


@pytest.mark.parametrize("layout", ["Self-Forcing", "original", "diffusers, sharded"])
def test_the_size_is_told_from_the_shapes(layout: str, tmp_path: Path, state: State) -> None:
    """Without a recipe's config; text_len 512, head dim 128 as in all published sizes."""
    assert load(LAYOUTS[layout](tmp_path, state)).config == SMALL


def test_the_recorded_weights_load_by_the_same_loader() -> None:
    """Head dim 16 leaves no trace in the shapes, so the config says it."""
    config = WanConfig(
        in_dim=16,
        out_dim=16,
        dim=96,
        ffn_dim=192,
        freq_dim=32,
        text_dim=64,
        text_len=16,
        num_heads=6,
        num_blocks=3,
        patch_height=2,
        patch_width=2,
        eps=1e-6,
    )
    dit = load(GOLDEN, config=config)
    assert dit.config == config
    assert_holds(dit, {k: t.float() for k, t in load_file(GOLDEN / "tensors.safetensors").items()})
    with pytest.raises(CheckpointError, match="dim 96 is not a multiple of head dim 128"):
        load(GOLDEN)


def test_a_wrapper_can_be_chosen(tmp_path: Path, state: State) -> None:
    path = LAYOUTS["Self-Forcing"](tmp_path, state)
    assert describe(path).wrappers == ("generator_ema", "generator")
    assert_holds(load(path, wrapper="generator"), {name: t + 1 for name, t in state.items()})
    with pytest.raises(CheckpointError, match="has no 'model'; it has generator_ema, generator"):
        load(path, wrapper="model")


def test_a_wrapper_of_a_flat_file_is_refused(tmp_path: Path, state: State) -> None:
    path = LAYOUTS["Krea"](tmp_path, state)
    with pytest.raises(CheckpointError, match="holds one model, there is no 'generator'"):
        load(path, wrapper="generator")


@pytest.mark.parametrize("layout", ["Krea", "CausVid", "diffusers, sharded"])
def test_the_blocks_of_other_stages_are_never_read(
    layout: str, tmp_path: Path, state: State
) -> None:
    """Their numbers are NaN here, which every tensor that is read is checked for."""
    broken = {
        name: torch.full_like(t, torch.nan) if name.startswith(("blocks.0.", "blocks.2.")) else t
        for name, t in state.items()
    }
    path = LAYOUTS[layout](tmp_path, broken)
    dit = load(path, blocks=range(1, 2))
    own = {name: t for name, t in state.items() if not name.startswith(("blocks.0.", "blocks.2."))}
    assert_holds(dit, own)
    assert dit.facts.num_blocks == 3
    with pytest.raises(RuntimeError, match="not on this stage"):
        dit.blocks[0](torch.zeros(1))
    with pytest.raises(CheckpointError, match=r"(blocks\.[02]\..*holds NaN or infinity)"):
        load(path)


def test_a_stage_of_blocks_that_do_not_exist_is_a_programming_error(
    tmp_path: Path, state: State
) -> None:
    path = LAYOUTS["Krea"](tmp_path, state)
    for blocks in (range(0, 4), range(-1, 2), range(0, 3, 2)):
        with pytest.raises(ValueError, match="not a stage of a model with 3 blocks"):
            load(path, blocks=blocks)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_weights_are_cast_to_the_dtype_that_is_asked_for(
    stored: torch.dtype, tmp_path: Path, state: State
) -> None:
    narrow = {name: tensor.to(stored) for name, tensor in state.items()}
    path = write_torch(tmp_path / "model.pt", {"generator": narrow})
    for dtype in (torch.float32, torch.bfloat16):
        assert_holds(load(path, dtype=dtype), {name: t.to(dtype) for name, t in narrow.items()})


def test_numbers_that_the_dtype_cannot_hold_are_an_error(tmp_path: Path, state: State) -> None:
    large = state | {"head.head.bias": state["head.head.bias"] + 1e6}
    path = write_torch(tmp_path / "model.pt", large)
    with pytest.raises(CheckpointError, match=r"head\.head\.bias holds numbers too large for tor"):
        load(path, dtype=torch.float16)


def test_a_model_of_another_size_names_both(tmp_path: Path) -> None:
    small = dataclasses.replace(SMALL, num_blocks=2, dim=256, num_heads=2)
    path = LAYOUTS["Krea"](tmp_path, random_weights(1, small))
    with pytest.raises(
        CheckpointError,
        match=r"is a model \(dim 256, 2 blocks\), the recipe wants model \(dim 128, 3 blocks\)",
    ):
        load(path, config=SMALL)


def test_published_sizes_have_names() -> None:
    large = dataclasses.replace(SMALL, dim=5120, num_heads=40, num_blocks=40, ffn_dim=13824)
    small = dataclasses.replace(SMALL, dim=1536, num_heads=12, num_blocks=30, ffn_dim=8960)
    assert difference(large, small) == (
        "is a 14B (dim 5120, 40 blocks), the recipe wants 1.3B (dim 1536, 30 blocks)"
    )
    assert difference(small, dataclasses.replace(small, eps=1e-5, text_len=16)) is None


def test_another_number_of_input_channels_names_both(tmp_path: Path) -> None:
    conditioned = dataclasses.replace(SMALL, in_dim=36)
    path = LAYOUTS["Krea"](tmp_path, random_weights(1, conditioned))
    with pytest.raises(CheckpointError, match="has in_dim 36, the recipe wants 16"):
        load(path, config=SMALL)
    assert load(path).facts.condition_channels == 20


def test_misfits_name_the_key_as_the_file_has_it(tmp_path: Path, state: State) -> None:
    flat = in_diffusers_names(state)
    key = "blocks.1.attn1.to_q.weight"
    cases = {
        r"blocks\.1\.self_attn\.q\.weight is missing;": {k: t for k, t in flat.items() if k != key},
        r"blocks\.0\.extra is unexpected;": flat | {"blocks.0.extra": torch.zeros(2)},
        r"blocks\.1\.attn1\.to_q\.weight is \(4, 4\), the model needs \(128, 128\);": flat
        | {key: torch.zeros(4, 4)},
        r"blocks\.1 is missing;": {k: t for k, t in flat.items() if ".1." not in k[:9]},
        r"attn2\.add_k_proj\.weight belongs to an image-to-video": flat
        | {"blocks.0.attn2.add_k_proj.weight": torch.zeros(2)},
        r"scale_weight belongs to a quantised": flat
        | {"blocks.0.attn1.to_q.scale_weight": torch.zeros(1)},
        r"extra holds torch\.int8": flat | {"blocks.0.extra": torch.zeros(2, dtype=torch.int8)},
    }
    for number, (message, content) in enumerate(cases.items()):
        path = tmp_path / f"{number}.safetensors"
        save_file(content, path)
        with pytest.raises(CheckpointError, match=message) as raised:
            load(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert "\n" not in str(raised.value)


def test_two_keys_of_one_meaning_are_an_error(tmp_path: Path, state: State) -> None:
    content = state | prefixed({"head.head.bias": state["head.head.bias"]}, "model.")
    with pytest.raises(CheckpointError, match=r"both mean head\.head\.bias"):
        load(write_torch(tmp_path / "model.pt", content))


def test_a_file_of_another_kind_is_named(tmp_path: Path, state: State) -> None:
    files = {
        Kind.VAE: {"encoder.conv1.weight": torch.zeros(2), "decoder.conv1.weight": torch.zeros(2)},
        Kind.TEXT_ENCODER: {
            "token_embedding.weight": torch.zeros(2),
            "blocks.0.pos_embedding.embedding.weight": torch.zeros(2),
        },
        Kind.LORA: {"diffusion_model.blocks.0.ffn.0.lora_A.weight": torch.zeros(2, 2)},
    }
    for kind, content in files.items():
        path = write_torch(tmp_path / "model.pth", content)
        assert describe(path).kind is kind
        with pytest.raises(CheckpointError, match=f"is not a Wan .* but a {kind.value}"):
            load(path)
    path = write_torch(tmp_path / "model.pth", {"weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="but of unknown contents"):
        load(path)


def test_description_says_what_a_file_is(tmp_path: Path, state: State) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in state.items()}
    halves["head.head.bias"] = state["head.head.bias"]
    info = describe(LAYOUTS["diffusers, sharded"](tmp_path, halves))
    assert info.kind is Kind.DIT
    assert info.naming is Naming.DIFFUSERS
    assert info.wrapper is None
    assert info.dtypes == (torch.bfloat16, torch.float32)
    assert info.num_tensors == len(state)
    assert info.num_params == sum(tensor.numel() for tensor in state.values())
    assert info.size_bytes >= sum(t.numel() * t.element_size() for t in halves.values())
    assert info.config == SMALL
    info = describe(LAYOUTS["Rolling Forcing"](tmp_path, state))
    assert (info.naming, info.wrapper) == (Naming.NATIVE, "generator_ema")


MEASURE = """
import sys, torch
from streamgen.models.loading import load_dit

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))

dtype = getattr(torch, sys.argv[2])
load_dit(sys.argv[3], device=torch.device("cpu"), dtype=dtype)  # allocator and code are there
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as peaks:
    peaks.write("5")
dit = load_dit(sys.argv[1], device=torch.device("cpu"), dtype=dtype)
weights = sum(p.numel() * p.element_size() for p in dit.parameters())
print((status("VmHWM") - before) / weights)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [("Krea", "float32"), ("LongLive", "bfloat16"), ("diffusers, sharded", "float32")],
)
def test_peak_memory_while_loading_is_at_most_1_15_times_the_weights(
    layout: str, dtype: str, tmp_path: Path, state: State
) -> None:
    """Resident memory of a fresh process, the mapped pages of the file included; 200 MB file.

    Mapping a file once for all of its tensors shows as 2.0 here (3.0 where they are narrowed).
    """
    config = dataclasses.replace(SMALL, dim=640, num_heads=5, ffn_dim=2560, num_blocks=6)
    path = LAYOUTS[layout](tmp_path, random_weights(0, config))
    warm = LAYOUTS["CausVid"](tmp_path, state)
    assert describe(path).size_bytes > 170e6
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), dtype, str(warm)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert float(measured.stdout) <= 1.15

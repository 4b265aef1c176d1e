"""LoRAs: every published format reads to the same deltas; scales merge and unmerge exactly.

Legend: R rank, I inputs, O outputs of a linear layer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import dictionaries, floats, lists, sampled_from
from safetensors.torch import save_file
from torch import Tensor

from streamgen.errors import CheckpointError, ConfigError
from streamgen.models.loading import load_dit
from streamgen.models.wan.dit import WanDiT
from streamgen.models.wan.lora import Difference, Lora, LoraSet, LowRank
from streamgen.models.wan.lora_file import read_lora
from streamgen.models.wan.names import to_diffusers
from tests.checkpoint_files import LAYOUTS, State, random_weights, write_torch

RANK = 4
ALPHA = 2.0
MODULES = {  # native module: (O, I)
    "blocks.0.self_attn.q": (128, 128),
    "blocks.2.cross_attn.o": (128, 128),
    "blocks.1.ffn.0": (96, 128),
    "blocks.1.ffn.2": (128, 96),
}

Factors = Mapping[str, tuple[Tensor, Tensor]]


def random_factors(seed: int, modules: Mapping[str, tuple[int, int]] = MODULES) -> Factors:
    """By native module: down RI and up OR."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(RANK, inputs, generator=generator),
            torch.randn(outputs, RANK, generator=generator),
        )
        for name, (outputs, inputs) in modules.items()
    }


def _named(factors: Factors, form: str, down: str, up: str) -> State:
    return {
        form.format(module) + leaf: tensor
        for module, pair in factors.items()
        for leaf, tensor in zip((down, up), pair, strict=True)
    }


def _alphas(factors: Factors, form: str) -> State:
    return {form.format(module) + ".alpha": torch.tensor(ALPHA) for module in factors}


def _longlive(folder: Path, factors: Factors) -> Path:
    state = _named(factors, "base_model.model.{}", ".lora_A.weight", ".lora_B.weight")
    return write_torch(folder / "lora.pt", {"generator_lora": state, "step": 3000})


def _flat_peft(folder: Path, factors: Factors) -> Path:
    form = "base_model.model._fsdp_wrapped_module.{}"
    state = _named(factors, form, ".lora_A.default.weight", ".lora_B.default.weight")
    return write_torch(folder / "lora.pt", state)


def _peft_folder(folder: Path, factors: Factors) -> Path:
    state = _named(factors, "base_model.model.{}", ".lora_A.weight", ".lora_B.weight")
    save_file(state, folder / "adapter_model.safetensors")
    config = {"r": RANK, "lora_alpha": 8, "alpha_pattern": dict.fromkeys(MODULES, ALPHA)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _diffusers(folder: Path, factors: Factors) -> Path:
    named = {to_diffusers(module): pair for module, pair in factors.items()}
    state = _named(named, "transformer.{}", ".lora_A.weight", ".lora_B.weight")
    config = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA}
    path = folder / "pytorch_lora_weights.safetensors"
    save_file(state, path, {"lora_adapter_metadata": json.dumps(config)})
    return path


def _old_diffusers(folder: Path, factors: Factors) -> Path:
    named = {to_diffusers(module): pair for module, pair in factors.items()}
    form = "transformer.{}"
    state = _named(named, form, ".lora.down.weight", ".lora.up.weight") | _alphas(named, form)
    save_file(state, folder / "lora.safetensors")
    return folder


def _comfy(down: str, up: str, form: str) -> Callable[[Path, Factors], Path]:
    def write(folder: Path, factors: Factors) -> Path:
        path = folder / "lora.safetensors"
        save_file(_named(factors, form, down, up) | _alphas(factors, form), path)
        return path

    return write


def _kohya(folder: Path, factors: Factors) -> Path:
    form = "lora_unet_{}"
    named = {module.replace(".", "_"): pair for module, pair in factors.items()}
    state = _named(named, form, ".lora_down.weight", ".lora_up.weight")
    integers = {key: tensor.long() for key, tensor in _alphas(named, form).items()}
    save_file(state | integers, folder / "lora.safetensors")
    return folder


FORMATS: Mapping[str, Callable[[Path, Factors], Path]] = {
    "LongLive": _longlive,
    "PEFT, flat": _flat_peft,
    "PEFT, folder": _peft_folder,
    "diffusers": _diffusers,
    "diffusers, old": _old_diffusers,
    "ComfyUI, up and down": _comfy(".lora_down.weight", ".lora_up.weight", "diffusion_model.{}"),
    "ComfyUI, A and B": _comfy(".lora_A.weight", ".lora_B.weight", "diffusion_model.{}"),
    "kohya": _kohya,
}
STATES_NO_ALPHA = ("LongLive", "PEFT, flat")


def model(dtype: torch.dtype = torch.float32, blocks: range | None = None) -> WanDiT:
    with tempfile.TemporaryDirectory() as folder:
        path = LAYOUTS["LongLive"](Path(folder), random_weights(0))
        return load_dit(path, device=torch.device("cpu"), dtype=dtype, blocks=blocks)


def snapshot(dit: WanDiT) -> State:
    return {name: tensor.clone() for name, tensor in dit.state_dict().items()}


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def in_memory(seed: int, modules: Mapping[str, tuple[int, int]] = MODULES) -> Lora:
    low_ranks = [
        LowRank(f"{name}.weight", down, up, ALPHA / RANK)
        for name, (down, up) in random_factors(seed, modules).items()
    ]
    bias = Difference("blocks.0.self_attn.q.bias", torch.full((128,), float(seed)))
    return Lora(Path(f"lora-{seed}"), (*low_ranks, bias))


@pytest.mark.parametrize("form", FORMATS)
def test_every_published_format_gives_the_same_deltas(form: str, tmp_path: Path) -> None:
    factors = random_factors(1)
    path = FORMATS[form](tmp_path, factors)
    lora = read_lora(path, alpha=ALPHA if form in STATES_NO_ALPHA else None)
    deltas = {delta.parameter.removesuffix(".weight"): delta for delta in lora.deltas}
    assert deltas.keys() == factors.keys()
    for name, (down, up) in factors.items():
        delta = deltas[name]
        assert isinstance(delta, LowRank)
        assert torch.equal(delta.down, down)
        assert torch.equal(delta.up, up)
        assert delta.scale == ALPHA / RANK


def test_without_an_alpha_the_factors_count_as_they_are(tmp_path: Path) -> None:
    """alpha = r, as LongLive trains (both 256)."""
    lora = read_lora(FORMATS["LongLive"](tmp_path, random_factors(1)))
    assert {delta.scale for delta in lora.deltas if isinstance(delta, LowRank)} == {1.0}


def test_an_alpha_that_is_given_overrules_the_files(tmp_path: Path) -> None:
    lora = read_lora(FORMATS["kohya"](tmp_path, random_factors(1)), alpha=RANK * 3.0)
    assert {delta.scale for delta in lora.deltas if isinstance(delta, LowRank)} == {3.0}


def test_rank_stabilised_adapters_divide_by_the_root_of_the_rank(tmp_path: Path) -> None:
    """Kalajdzievski 2023, arXiv:2312.03732; PEFT's use_rslora."""
    path = FORMATS["PEFT, folder"](tmp_path, random_factors(1))
    config = {"r": RANK, "lora_alpha": ALPHA, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    scales = {delta.scale for delta in read_lora(path).deltas if isinstance(delta, LowRank)}
    assert scales == {ALPHA / RANK**0.5}


def test_whole_differences_of_weights_biases_and_modulations(tmp_path: Path) -> None:
    """As lightx2v writes them."""
    ones = {"diff": torch.ones(128), "diff_b": torch.ones(128), "diff_m": torch.ones(1, 6, 128)}
    content = {
        "diffusion_model.blocks.0.norm3.diff": ones["diff"],
        "diffusion_model.blocks.0.norm3.diff_b": ones["diff_b"],
        "diffusion_model.blocks.0.diff_m": ones["diff_m"],
        "diffusion_model.blocks.1.modulation.diff": ones["diff_m"],
    }
    save_file({key: tensor.clone() for key, tensor in content.items()}, tmp_path / "l.safetensors")
    lora = read_lora(tmp_path)
    dit = model()
    before = snapshot(dit)
    LoraSet(dit, {"a": lora}).apply({"a": 0.5})
    touched = {
        "blocks.0.norm3.weight",
        "blocks.0.norm3.bias",
        "blocks.0.modulation",
        "blocks.1.modulation",
    }
    assert {delta.parameter for delta in lora.deltas} == touched
    assert_same(snapshot(dit), {k: t + 0.5 if k in touched else t for k, t in before.items()})


def test_a_base_with_its_lora_is_the_sum_of_the_paper(tmp_path: Path) -> None:
    """W = W0 + scale * (alpha / r) * B A, LongLive's two files; float32, so within rounding."""
    factors = random_factors(1)
    dit = model()
    before = snapshot(dit)
    lora = read_lora(FORMATS["LongLive"](tmp_path, factors), alpha=ALPHA)
    LoraSet(dit, {"longlive": lora}).apply({"longlive": 0.75})
    for name, tensor in snapshot(dit).items():
        down, up = factors.get(name.removesuffix(".weight"), (None, None))
        if down is None or up is None:
            assert torch.equal(tensor, before[name])
        else:
            wanted = before[name].double() + 0.75 * ALPHA / RANK * (up.double() @ down.double())
            torch.testing.assert_close(tensor.double(), wanted, atol=1e-5, rtol=0)


def test_a_lora_of_the_patch_embedding_has_factors_of_a_convolution() -> None:
    down, up = torch.randn(RANK, 16, 1, 2, 2), torch.randn(128, RANK, 1, 1, 1)
    dit = model()
    before = dit.patch_embedding.weight.clone()
    lora = Lora(Path("l"), (LowRank("patch_embedding.weight", down, up, 0.5),))
    LoraSet(dit, {"a": lora}).apply({"a": 1.0})
    wanted = before + 0.5 * torch.einsum("or,rcthw->octhw", up[:, :, 0, 0, 0], down)
    torch.testing.assert_close(dit.patch_embedding.weight, wanted, atol=1e-5, rtol=0)


SCALES = dictionaries(sampled_from(["a", "b"]), floats(-2, 2, width=16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(history=lists(SCALES, max_size=4), last=SCALES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_weights_depend_on_the_scales_and_not_on_earlier_ones(
    dtype: torch.dtype, history: list[dict[str, float]], last: dict[str, float]
) -> None:
    """Exactly; and at scale 0 they are the loaded ones, bit for bit."""
    dit, fresh = model(dtype), model(dtype)
    loaded = snapshot(dit)
    loras = {"a": in_memory(1), "b": in_memory(2, {"blocks.1.ffn.0": (96, 128)})}
    switched, direct = LoraSet(dit, loras), LoraSet(fresh, loras)
    for scales in history:
        switched.apply(scales)
    switched.apply(last)
    direct.apply(last)
    assert_same(snapshot(dit), snapshot(fresh))
    switched.apply({})
    assert_same(snapshot(dit), loaded)


def test_several_loras_add_up() -> None:
    dit = model()
    bias = dit.get_parameter("blocks.0.self_attn.q.bias")
    before = bias.clone()
    loras = LoraSet(dit, {"a": in_memory(1), "b": in_memory(2)})
    loras.apply({"a": 1.0, "b": 0.5})
    assert torch.equal(bias, before + 1.0 + 0.5 * 2)
    assert loras.scales == {"a": 1.0, "b": 0.5}


def test_weights_are_rewritten_in_place() -> None:
    """Graphs that were captured over them stay valid; untouched ones are not even written."""
    dit = model()
    places = {name: tensor.data_ptr() for name, tensor in dit.named_parameters()}
    versions = {name: tensor._version for name, tensor in dit.named_parameters()}
    LoraSet(dit, {"a": in_memory(1)}).apply({"a": 1.0})
    assert places == {name: tensor.data_ptr() for name, tensor in dit.named_parameters()}
    touched = {delta.parameter for delta in in_memory(1).deltas}
    assert touched == {n for n, t in dit.named_parameters() if t._version != versions[n]}


def test_the_memory_that_is_kept_is_the_touched_weights_and_the_factors() -> None:
    dit = model(torch.bfloat16)
    weights = sum(outputs * inputs for outputs, inputs in MODULES.values()) + 128
    factors = sum(RANK * (outputs + inputs) for outputs, inputs in MODULES.values()) + 128
    kept = LoraSet(dit, {"a": in_memory(1)}, keep_on=torch.device("cpu")).size_bytes
    assert kept == 2 * weights + 4 * factors


def test_blocks_of_other_stages_are_passed_over() -> None:
    stage = model(blocks=range(1, 2))
    whole = model()
    for dit in (stage, whole):
        LoraSet(dit, {"a": in_memory(1)}).apply({"a": 1.0})
    merged = snapshot(whole)
    assert_same(snapshot(stage), {name: merged[name] for name in snapshot(stage)})


def test_a_lora_for_another_size_names_both_numbers() -> None:
    wide = in_memory(1, {"blocks.0.self_attn.q": (5120, 5120)})
    with pytest.raises(CheckpointError, match=r"is \(5120, 5120\) there, \(128, 128\) in the mod"):
        LoraSet(model(), {"a": wide})
    deep = in_memory(1, {"blocks.39.self_attn.q": (128, 128)})
    with pytest.raises(CheckpointError, match="changes block 39, the model has 3 blocks"):
        LoraSet(model(), {"a": deep})
    image = in_memory(1, {"blocks.0.cross_attn.k_img": (128, 128)})
    with pytest.raises(CheckpointError, match=r"cross_attn\.k_img\.weight, which the model does"):
        LoraSet(model(), {"a": image})


def test_unknown_names_and_scales_that_are_no_numbers_are_refused() -> None:
    dit = model()
    before = snapshot(dit)
    loras = LoraSet(dit, {"a": in_memory(1)})
    with pytest.raises(ConfigError, match="there is no LoRA 'b'; loaded: a"):
        loras.apply({"b": 1.0})
    with pytest.raises(ConfigError, match="not a finite number"):
        loras.apply({"a": float("nan")})
    assert_same(snapshot(dit), before)


KEY = "diffusion_model.blocks.0.ffn.0"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({".lora_A.weight": (4, 8)}, "blocks.0.ffn.0 has no up factor"),
        ({".lora_B.weight": (8, 4)}, "blocks.0.ffn.0 has no down factor"),
        ({".lora_A.weight": (4, 8), ".lora_B.weight": (8, 2)}, "whose ranks differ"),
        ({".lora_A.weight": (4, 8), ".lora_down.weight": (4, 8)}, "is a second down"),
        ({".lora_A.weight": (4,), ".lora_B.weight": (8, 4)}, "whose ranks differ"),
        (
            {".lora_A.weight": (4, 8), ".lora_B.weight": (8, 4), ".alpha": (2,)},
            "not one number",
        ),
        ({".dora_scale": (4, 8)}, "is of a DoRA"),
        ({".lora_magnitude_vector": (4,)}, "is of a DoRA"),
        ({".hada_w1_a": (4, 8)}, "is of a LoHa or LoKr"),
        ({".lora_A.weight": (4, 8), ".else": (4, 8)}, "is of no known LoRA format"),
        ({".weight": (4, 8)}, "is not a LoRA but unknown"),
    ],
)
def test_files_that_cannot_be_meant_are_refused_by_key(
    content: dict[str, tuple[int, ...]], expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({KEY + leaf: torch.ones(shape) for leaf, shape in content.items()}, path)
    with pytest.raises(CheckpointError) as raised:
        read_lora(path)
    assert expected in str(raised.value)
    assert str(raised.value).startswith(str(path))


def test_damaged_numbers_and_configs_are_refused(tmp_path: Path) -> None:
    factors = random_factors(1)
    down, up = factors["blocks.1.ffn.0"]
    broken = {**factors, "blocks.1.ffn.0": (down * torch.nan, up)}
    with pytest.raises(CheckpointError, match=r"ffn\.0\.lora_A\.weight holds NaN"):
        read_lora(FORMATS["LongLive"](tmp_path, broken))
    path = FORMATS["PEFT, folder"](tmp_path, factors).joinpath("adapter_model.safetensors")
    for damaged in ("", "[]", '{"lora_alpha": "much"}', '{"alpha_pattern": 3}'):
        (tmp_path / "adapter_config.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(CheckpointError, match="its LoRA config cannot be read"):
            read_lora(path)


def test_a_dit_is_no_lora(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a LoRA but Wan diffusion transformer"):
        read_lora(LAYOUTS["Krea"](tmp_path, random_weights(0)))

"""One forward of the DiT and its parts against recorded numbers of the reference code, at 2e-5."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from streamgen.cache.window import Positions
from streamgen.diffusion.flow import velocity_to_clean
from streamgen.diffusion.guidance import Guidance
from streamgen.diffusion.noise import RecordedNoise
from streamgen.diffusion.schedule import Ladder, NoiseSchedule
from streamgen.engine.batch import Level, Row
from streamgen.engine.recipe import CacheMode, Recipe
from streamgen.engine.stage import Stage
from streamgen.models.full_sequence import forward_full
from streamgen.models.wan.dit import WanDiT, sinusoid
from streamgen.ops.rope import TokenGrid, rope_table, rotate
from streamgen.scheduling.policy import Sequential
from tests.numerics.test_golden_engine import LatentStarter, golden_dit, roll_out

GoldenCase = Callable[[str], tuple[dict[str, Tensor], dict[str, object]]]
CLOSE = {"atol": 2e-5, "rtol": 0}
TIMESTEP_FRAMES = (1000.0, 500.0, 0.0)  # the per-frame forward of diffusers


@pytest.fixture(scope="module")
def dit(golden_case: GoldenCase) -> WanDiT:
    return golden_dit(golden_case).requires_grad_(False)


@pytest.mark.parametrize("head_dim", [16, 128])
@pytest.mark.parametrize(("name", "starts"), [("start0", (0, 0)), ("start_5_1000", (5, 1000))])
def test_rope_equals_the_reference(
    golden_case: GoldenCase, head_dim: int, name: str, starts: tuple[int, int]
) -> None:
    """Three axes, every row of the batch at temporal positions of its own."""
    case, _ = golden_case("A_rope_sinusoid")
    positions_BF = torch.tensor([[start + frame for frame in range(3)] for start in starts])
    table = rope_table(positions_BF, TokenGrid(4, 6), head_dim)
    rotated = rotate(case[f"q_hd{head_dim}"], table)
    torch.testing.assert_close(rotated, case[f"rope_hd{head_dim}_{name}"], **CLOSE)


@pytest.mark.parametrize("dim", [32, 256])
def test_the_sinusoid_equals_the_reference(golden_case: GoldenCase, dim: int) -> None:
    case, _ = golden_case("A_rope_sinusoid")
    torch.testing.assert_close(sinusoid(case["sin_t"], dim), case[f"sin_dim{dim}"], **CLOSE)


def test_a_forward_equals_the_reference_inside_and_out(
    golden_case: GoldenCase, dit: WanDiT
) -> None:
    """Embeddings, both attentions of block 0 before their gates, residual stream, output."""
    case, _ = golden_case("A_bidirectional")
    got: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[object, object, Tensor], None]:
        def hook(module: object, inputs: object, output: Tensor) -> None:
            got[name] = output

        return hook

    watched = {
        "time_embedding_out": dit.time_embedding,
        "time_projection_out": dit.time_projection,
        "patch_embedding_out": dit.patch_embedding,
        "block0_self_attn_out": dit.get_submodule("blocks.0.self_attn.o"),
        "block0_cross_attn_out": dit.get_submodule("blocks.0.cross_attn.o"),
        "block0_out": dit.blocks[0],
        "block2_out": dit.blocks[2],
    }
    hooks = [module.register_forward_hook(record(name)) for name, module in watched.items()]
    output = bidirectional(dit, case, case["t"][:, None].expand(-1, 3))
    for hook in hooks:
        hook.remove()
    for name in ("time_embedding_out", "time_projection_out"):
        got[name] = got[name][:, 0]  # one timestep a latent frame here, one a sample there
    got["text_embedding_out"] = dit.embed_text(padded_text(case))
    got["output"] = output.transpose(1, 2)
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, case[name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}")
    assert set(case) - set(got) == {
        *("x", "t", "context_0", "context_1", "output_t_int"),
        *("output_diffusers", "output_diffusers_per_frame_t"),
    }


@pytest.mark.parametrize(
    ("name", "timesteps"),
    [
        ("output_t_int", ((999,) * 3, (412,) * 3)),
        ("output_diffusers", None),
        ("output_diffusers_per_frame_t", (TIMESTEP_FRAMES,) * 2),
    ],
)
def test_a_forward_equals_other_variants(
    golden_case: GoldenCase, dit: WanDiT, name: str, timesteps: tuple[tuple[float, ...]] | None
) -> None:
    """Integer timesteps; diffusers' implementation; a timestep of its own for each latent frame."""
    case, _ = golden_case("A_bidirectional")
    timesteps_BF = case["t"][:, None].expand(-1, 3)
    if timesteps is not None:
        timesteps_BF = torch.tensor(timesteps)
    output = bidirectional(dit, case, timesteps_BF)
    torch.testing.assert_close(output.transpose(1, 2), case[name], **CLOSE)


def test_single_passes_of_a_rollout_equal_the_reference(
    golden_case: GoldenCase, dit: WanDiT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw velocities of two passes, the clean estimate after every step of one chunk, and the
    prompt's keys and values, inside the rollout whose end another test compares."""
    inputs, _ = golden_case("B_selfforcing_inputs")
    expected, _ = golden_case("B_selfforcing_global")
    recipe = Recipe(
        ladder=Ladder.warped(NoiseSchedule(5.0), [1000, 750, 500, 250]),
        mode=CacheMode.CLEAN,
        context_level=Level(0.0, 0.0),
        sinks=0,
        ring=21,
        positions=Positions.ABSOLUTE,
        chunk_frames=3,
        first_chunk_frames=3,
        first_chunk_is_alone=False,
        guidance=Guidance(),
    )
    passes: dict[tuple[int, int], tuple[Row, Tensor, Tensor]] = {}
    forward = Stage.forward

    def recorded(stage: Stage, rows: tuple[Row, ...], latents_BFCHW: Tensor) -> Tensor:
        velocity_BFCHW = forward(stage, rows, latents_BFCHW)
        (row,) = rows
        passes[row.where.chunk, row.where.step] = (row, latents_BFCHW, velocity_BFCHW)
        return velocity_BFCHW

    monkeypatch.setattr(Stage, "forward", recorded)
    draws = {(c, s + 1): inputs["renoise"][c, s] for c in range(7) for s in range(3)}
    roll_out(
        dit,
        recipe,
        LatentStarter(list(inputs["noise"][0].split(3)), [None] * 7),
        RecordedNoise(draws),
        inputs["prompt_embeds"][0],
        Sequential(),
    )
    for chunk in (0, 4):
        _, _, velocity_1FCHW = passes[chunk, 0]
        torch.testing.assert_close(velocity_1FCHW, expected[f"flow_chunk{chunk}_step0"], **CLOSE)
    for step in range(4):
        row, noisy_1FCHW, velocity_1FCHW = passes[5, step]
        sigma_1 = torch.tensor([row.level.sigma], dtype=torch.float64)
        clean_1FCHW = velocity_to_clean(noisy_1FCHW, velocity_1FCHW, sigma_1)
        torch.testing.assert_close(clean_1FCHW[0], expected["x0_chunk5_steps"][step], **CLOSE)
    told = torch.tensor([[passes[c, s][0].level.timestep] * 3 for c in range(7) for s in range(5)])
    torch.testing.assert_close(told, expected["timesteps_used"], atol=0, rtol=0)
    text = dit.text_kv(0, dit.embed_text(inputs["prompt_embeds"]))
    torch.testing.assert_close(text.k_BMNE, expected["crossattn0_k"], **CLOSE)
    torch.testing.assert_close(text.v_BMNE, expected["crossattn0_v"], **CLOSE)


def padded_text(case: dict[str, Tensor]) -> Tensor:
    """Both prompts in one tensor; rows beyond a prompt's length are the zeros of its padding."""
    return torch.nn.utils.rnn.pad_sequence([case["context_0"], case["context_1"]], batch_first=True)


def bidirectional(dit: WanDiT, case: dict[str, Tensor], timesteps_BF: Tensor) -> Tensor:
    return forward_full(
        dit,
        case["x"].transpose(1, 2),
        timesteps_BF,
        padded_text(case),
        positions_BF=torch.arange(3)[None].expand(2, -1),
    )

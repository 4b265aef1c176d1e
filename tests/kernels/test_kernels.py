"""Every kernel computes what its definition in streamgen.ops does.

Legend: B rows, F latent frames, L tokens, D model dim, N heads, E head dim, R G S of the ring.
"""

import pytest
import torch

from streamgen.ops import flow_step, modulation, pixels, qkv, quantise, rope
from streamgen.ops.quantise import KVFormat

ERROR_OF = {  # of a whole tensor, relative to its size: sums in another order, roundings of 8 bits
    torch.float32: 1e-6,
    torch.bfloat16: 1e-2,  # the interpreter cuts off where a GPU rounds
}
SIZES = [(1, 1, 6, 32), (2, 3, 4, 48)]  # rows, frames, tokens a frame, dim
DTYPES = list(ERROR_OF)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Shape and dtype are equal, and numbers within the rounding of the dtype."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    error = (found.double() - expected.double()).norm() / expected.double().norm()
    assert error < ERROR_OF[expected.dtype]


@pytest.mark.parametrize(("rows", "frames", "tokens", "dim"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_modulate_is_its_definition(kernels, draw, rows, frames, tokens, dim, dtype):
    x = draw(rows, frames * tokens, dim, dtype=dtype) * 3 + 1
    shift, scale = draw(rows, frames, dim, dtype=dtype), draw(rows, frames, dim, dtype=dtype)
    found = kernels.adaln.norm_modulate(x, shift, scale, 1e-6)
    assert_same(found, modulation.norm_modulate(x, shift, scale, 1e-6))


@pytest.mark.parametrize(("rows", "frames", "tokens", "dim"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gated_residual_is_its_definition(kernels, draw, rows, frames, tokens, dim, dtype):
    x, update = (draw(rows, frames * tokens, dim, dtype=dtype) for _ in range(2))
    gate = draw(rows, frames, dim, dtype=dtype)
    found = kernels.adaln.gated_residual(x, update, gate)
    assert_same(found, modulation.gated_residual(x, update, gate))


def test_modulation_reads_one_part_of_a_table_of_six(kernels, draw):
    """Shift and scale are slices of one projection in the model: strided, and one row for all."""
    x = draw(2, 8, 32)
    parts = draw(1, 2, 6, 32).expand(2, -1, -1, -1).unbind(2)
    found = kernels.adaln.norm_modulate(x, parts[0], parts[1], 1e-6)
    expected = modulation.norm_modulate(x, parts[0], parts[1], 1e-6)
    assert_same(found, expected)


def _ring(draw, rows, frames, dtype, heads, head_dim):
    store = draw(2, 4, 5, 6, heads, head_dim, dtype=dtype)
    row_numbers = torch.tensor([2, 0, 3][:rows], device=store.device)[:, None]
    cells = torch.tensor([[1, 3, 4], [4, 0, 2], [0, 1, 2]], device=store.device)[:rows, :frames]
    return qkv.Ring(store[0], store[1], row_numbers, cells)


def _copy(ring):
    return qkv.Ring(ring.keys_RGSNE.clone(), ring.values_RGSNE.clone(), ring.rows_B1, ring.cells_BF)


@pytest.mark.parametrize("rotates_keys", [False, True])
@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_rotate_write_is_its_definition(kernels, draw, rows, frames, dtype, rotates_keys):
    """The returned queries, what was written, and what was not are all as the definition has it."""
    heads, head_dim, grid = 3, 12, rope.TokenGrid(2, 3)
    tokens = frames * grid.num_tokens
    q, k, v = (draw(rows, tokens, heads * head_dim, dtype=dtype) for _ in range(3))
    norms = qkv.QKNorms(draw(36, dtype=dtype), draw(36, dtype=dtype), 1e-6)
    positions = torch.tensor([[7, 8, 9], [0, 1, 2], [40, 41, 42]])[:rows, :frames]
    table = rope.rope_table(positions, grid, head_dim, kernels.device)
    expected_ring = _ring(draw, rows, frames, dtype, heads, head_dim)
    found_ring = _copy(expected_ring)
    expected = qkv.norm_rotate_write(q, k, v, norms, table, expected_ring, rotates_keys)
    found = kernels.rope_kv_write.norm_rotate_write(q, k, v, norms, table, found_ring, rotates_keys)
    assert_same(found, expected)
    assert_same(found_ring.keys_RGSNE, expected_ring.keys_RGSNE)
    assert torch.equal(found_ring.values_RGSNE, expected_ring.values_RGSNE)


def test_a_ring_whose_cells_are_scattered_is_refused(kernels, draw):
    ring = _ring(draw, 1, 1, torch.float32, 3, 12)
    scattered = qkv.Ring(
        ring.keys_RGSNE.transpose(2, 3).contiguous().transpose(2, 3),
        ring.values_RGSNE.transpose(2, 3).contiguous().transpose(2, 3),
        ring.rows_B1, ring.cells_BF,
    )  # fmt: skip
    q = draw(1, 6, 36)
    table = rope.rope_table(torch.tensor([[0]]), rope.TokenGrid(2, 3), 12, kernels.device)
    with pytest.raises(ValueError, match="side by side"):
        kernels.rope_kv_write.norm_rotate_write(
            q, q, q, qkv.QKNorms(draw(36), draw(36), 1e-6), table, scattered, True
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotate_is_its_definition_on_part_of_a_ring(kernels, draw, dtype):
    """Cached keys are a strided view: some rows, the first cells."""
    grid = rope.TokenGrid(2, 3)
    store = draw(4, 5, 6, 3, 12, dtype=dtype)
    keys = store[1:3, :4].flatten(1, 2)
    table = rope.rope_table(torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]]), grid, 12, kernels.device)
    found = kernels.rope_kv_write.rotate(keys, table)
    assert_same(found, rope.rotate(keys, table))


@pytest.mark.parametrize("dtype", DTYPES)
def test_flow_step_is_its_definition(kernels, draw, dtype):
    noisy, velocity = (draw(3, 2, 4, 5, 6, dtype=dtype) for _ in range(2))
    noise = draw(3, 2, 4, 5, 6)
    sigma = torch.tensor([1.0, 0.6, 0.25], device=noise.device)
    following = torch.tensor([0.6, 0.25, 0.0], device=noise.device)
    found = kernels.flow_step.flow_step(noisy, velocity, noise, sigma, following)
    expected = flow_step.flow_step(noisy, velocity, noise, sigma, following)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def _pictures(draw, frames, height, width):
    return (draw(frames, height, width, 3) * 80 + 128).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pictures_go_in_as_their_definition_says(kernels, draw, dtype):
    pictures = _pictures(draw, 2, 6, 10)
    found = kernels.pixels.to_signed(pictures, dtype)
    assert_same(found, pixels.to_signed(pictures, dtype))


@pytest.mark.parametrize(("height", "width"), [(3, 5), (9, 13)])
def test_pictures_are_resized_as_their_definition_says(kernels, draw, height, width):
    pictures = _pictures(draw, 2, 6, 10)
    found = kernels.pixels.to_signed_resized(pictures, height, width, torch.float32)
    expected = pixels.to_signed_resized(pictures, height, width, torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # coordinates in float32


def test_pictures_come_out_as_their_definition_says(kernels, draw):
    """Exactly: halves go to the even neighbour, what is too bright or dark is cut off."""
    signed = draw(2, 3, 5, 6)
    signed[0, 0, 0, :4] = torch.tensor([-1.5, 1.5, 0.0, 1 / 255])  # 0.0 is 127.5, a tie
    assert torch.equal(kernels.pixels.to_bytes(signed), pixels.to_bytes(signed))


@pytest.mark.parametrize("kind", [KVFormat.INT8, KVFormat.INT4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_integer_codes_are_those_of_the_definition(kernels, draw, kind, dtype):
    """At most one code apart, where a division rounds otherwise; the way back is exact."""
    x = draw(2, 5, 3, 16, dtype=dtype) * 4
    x[0, 0, 0] = 0
    codes, scale = kernels.kv_quantise.quantise(x, kind)
    expected_codes, expected_scale = quantise.quantise(x, kind)
    torch.testing.assert_close(scale, expected_scale, rtol=1e-6, atol=0)
    assert codes.dtype == expected_codes.dtype
    found = quantise.dequantise(codes, scale, kind, torch.float32)
    expected = quantise.dequantise(expected_codes, expected_scale, kind, torch.float32)
    assert ((found - expected).abs() <= 1.01 * expected_scale[..., None]).all()
    assert (found == expected).float().mean() > 0.99
    back = kernels.kv_quantise.dequantise(codes, scale, kind, torch.float32)
    assert torch.equal(back, found)


def test_fp8_codes_are_those_of_the_definition(kernels, draw):
    """Exactly on a GPU. Triton's interpreter rounds a few numbers just below a power of two wrongly
    (it drops the carry into the exponent), so it may differ there."""
    x = draw(2, 5, 3, 16) * 4
    codes, scale = kernels.kv_quantise.quantise(x, KVFormat.FP8)
    back = kernels.kv_quantise.dequantise(codes, scale, KVFormat.FP8, torch.float32)
    expected = quantise.dequantise(*quantise.quantise(x, KVFormat.FP8), KVFormat.FP8, torch.float32)
    allowed = 0.04 if kernels.device.type == "cpu" else 0.0
    assert (back != expected).float().mean() <= allowed


@pytest.mark.parametrize("head_dim", [6, 12, 40])
@pytest.mark.parametrize("kind", [KVFormat.INT8, KVFormat.INT4])
def test_heads_need_not_be_powers_of_two(kernels, draw, kind, head_dim):
    x = draw(3, 7, head_dim)
    codes, scale = kernels.kv_quantise.quantise(x, kind)
    expected_codes, expected_scale = quantise.quantise(x, kind)
    torch.testing.assert_close(scale, expected_scale, rtol=1e-6, atol=0)
    assert (codes == expected_codes).float().mean() > 0.98
    back = kernels.kv_quantise.dequantise(codes, scale, kind, torch.float32)
    assert torch.equal(back, quantise.dequantise(codes, scale, kind, torch.float32))


def test_heads_of_odd_sizes_are_refused(kernels, draw):
    with pytest.raises(ValueError, match="takes pairs"):
        kernels.kv_quantise.quantise(draw(2, 3, 13), KVFormat.INT8)


@pytest.mark.parametrize("kind", [KVFormat.FP8, KVFormat.INT8, KVFormat.INT4])
@pytest.mark.parametrize("rotates", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_window_is_read_as_its_definition_says(kernels, draw, kind, rotates, dtype):
    """Codes are a strided view: some rows of a store, the first of their cells."""
    grid, heads, head_dim = rope.TokenGrid(2, 3), 3, 12
    codes, scales = quantise.quantise(draw(4, 5, 6, heads, head_dim), kind)
    codes, scales = codes.view(torch.uint8)[1:3, :4], scales[1:3, :4]
    codes, scales = codes.flatten(1, 2).view(kind.storage), scales.flatten(1, 2)
    assert not codes.is_contiguous()
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    table = rope.rope_table(positions, grid, head_dim, kernels.device) if rotates else None
    found = kernels.kv_quantise.dequantise_rotate(codes, scales, kind, dtype, table)
    expected = quantise.dequantise_rotate(codes, scales, kind, dtype, table)
    assert_same(found, expected)

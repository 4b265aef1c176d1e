"""What every VideoCodec promises, asked of each of them.

Shapes: T pixel frames, F latent frames, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, lists
from torch import Tensor

from streamgen.errors import ConfigError
from streamgen.models.base import VideoCodec
from tests.small_codecs import random_latents, random_pixels, small_tae, small_vae, tiny_codec

# float32 sums, other batch sizes take other kernels; the tiny codec sums up to 3,072 products, and
# the VAE takes the same steps however a stream is cut
TOLERANCES = {small_tae: 1e-5, small_vae: 0.0, tiny_codec: 1e-4}
CHUNKS = lists(integers(1, 3), min_size=1, max_size=3)  # latent frames of a stream's chunks

Maker = Callable[[], VideoCodec[Any]]
Call = Callable[[Tensor, object], tuple[Tensor, object]]

every_codec = pytest.mark.parametrize("make", TOLERANCES, ids=lambda make: make.__name__)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@cache
def made(make: Maker) -> VideoCodec[Any]:
    return make()


def pixel_lengths(codec: VideoCodec[Any], chunks: list[int]) -> list[int]:
    """Pixel frames of chunks of so many latent frames, by the codec's facts."""
    return [
        codec.facts.num_pixel_frames(length, is_first=index == 0)
        for index, length in enumerate(chunks)
    ]


def stream(call: Call, parts: list[Tensor], state: object) -> list[Tensor]:
    results: list[Tensor] = []
    for part in parts:
        result, state = call(part, state)
        results.append(result)
    return results


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a state, however it is built."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    slots = getattr(value, "__slots__", ())
    return [tensor for name in slots for tensor in tensors_in(getattr(value, name))]


def assert_identical(results: list[Tensor], expected: list[Tensor]) -> None:
    assert len(results) == len(expected)
    assert all(map(torch.equal, results, expected))


@every_codec
@settings(max_examples=8)
@given(chunks=CHUNKS, seed=integers(0, 2**20))
def test_an_encoded_stream_does_not_depend_on_where_it_is_cut(
    make: Maker, chunks: list[int], seed: int
) -> None:
    codec = made(make)
    lengths = pixel_lengths(codec, chunks)
    pixels_TCHW = random_pixels(sum(lengths), codec.facts, seed=seed)
    whole_FCHW, _ = codec.encode(pixels_TCHW, codec.initial_state())
    parts = stream(codec.encode, list(pixels_TCHW.split(lengths)), codec.initial_state())
    assert [len(part) for part in parts] == chunks
    torch.testing.assert_close(torch.cat(parts), whole_FCHW, atol=TOLERANCES[make], rtol=0)


@every_codec
@settings(max_examples=8)
@given(chunks=CHUNKS, seed=integers(0, 2**20))
def test_a_decoded_stream_does_not_depend_on_where_it_is_cut(
    make: Maker, chunks: list[int], seed: int
) -> None:
    codec = made(make)
    latents_FCHW = random_latents(sum(chunks), codec.facts, seed=seed)
    whole_TCHW, _ = codec.decode(latents_FCHW, codec.initial_state())
    parts = stream(codec.decode, list(latents_FCHW.split(chunks)), codec.initial_state())
    assert [len(part) for part in parts] == pixel_lengths(codec, chunks)
    torch.testing.assert_close(torch.cat(parts), whole_TCHW, atol=TOLERANCES[make], rtol=0)


@every_codec
def test_shapes_are_those_of_the_facts(make: Maker) -> None:
    codec = made(make)
    for num_frames in (1, 2):
        num_pixel_frames = codec.facts.num_pixel_frames(num_frames, is_first=True)
        pixels_TCHW = random_pixels(num_pixel_frames, codec.facts, seed=0)
        latents_FCHW, _ = codec.encode(pixels_TCHW, codec.initial_state())
        size = codec.facts.latent_size(pixels_TCHW.shape[-2], pixels_TCHW.shape[-1])
        assert latents_FCHW.shape == (num_frames, codec.facts.latent_channels, *size)
        decoded_TCHW, _ = codec.decode(latents_FCHW, codec.initial_state())
        assert decoded_TCHW.shape == pixels_TCHW.shape


@every_codec
def test_pictures_stay_between_minus_one_and_one(make: Maker) -> None:
    codec = made(make)
    latents_FCHW = 100 * random_latents(2, codec.facts, seed=1)
    pixels_TCHW, _ = codec.decode(latents_FCHW, codec.initial_state())
    assert pixels_TCHW.min() >= -1
    assert pixels_TCHW.max() <= 1


@every_codec
def test_the_past_matters_to_the_pictures(make: Maker) -> None:
    """Else a lost state would go unseen by the tests above."""
    codec = made(make)
    latents_FCHW = random_latents(2, codec.facts, seed=2)
    _, state = codec.decode(latents_FCHW[:1], codec.initial_state())
    _, other = codec.decode(-latents_FCHW[:1], codec.initial_state())
    pixels_TCHW, _ = codec.decode(latents_FCHW[1:], state)
    other_TCHW, _ = codec.decode(latents_FCHW[1:], other)
    assert (pixels_TCHW - other_TCHW).abs().max() > 1e-3


@every_codec
def test_a_state_can_be_used_again(make: Maker) -> None:
    """Neither a call nor writing into its result changes the state that it was given."""
    codec = made(make)
    directions: list[tuple[Call, Tensor]] = [
        (codec.encode, random_pixels(pixel_lengths(codec, [2])[0], codec.facts, seed=3)),
        (codec.decode, random_latents(2, codec.facts, seed=3)),
    ]
    for call, start in directions:
        _, state = call(start, codec.initial_state())
        following = start[-codec.facts.temporal_stride :] if call == codec.encode else start
        before = [tensor.clone() for tensor in tensors_in(state)]
        first, _ = call(following, state)
        expected = first.clone()
        first.zero_()
        again, _ = call(following, state)
        assert torch.equal(again, expected)
        assert_identical(tensors_in(state), before)


@every_codec
def test_streams_side_by_side_do_not_touch_each_other(make: Maker) -> None:
    """A second stream, interleaved with another one, equals the first run alone, bit for bit."""
    codec = made(make)
    lengths = pixel_lengths(codec, [1, 1, 2])
    pixels_TCHW = random_pixels(sum(lengths), codec.facts, seed=4)
    latents_FCHW = random_latents(3, codec.facts, seed=5)
    alone = stream(codec.encode, list(pixels_TCHW.split(lengths)), codec.initial_state())
    alone += stream(codec.decode, list(latents_FCHW.split(1)), codec.initial_state())

    state, other = codec.initial_state(), codec.initial_state()
    beside: list[Tensor] = []
    for part in pixels_TCHW.split(lengths):
        _, other = codec.encode(-part, other)
        encoded, state = codec.encode(part, state)
        beside.append(encoded)
    for part in latents_FCHW.split(1):
        _, other = codec.decode(-part, other)
        decoded, state = codec.decode(part, state)
        beside.append(decoded)
    assert_identical(beside, alone)


@every_codec
def test_a_call_leaves_nothing_in_the_module(make: Maker) -> None:
    codec = made(make)
    assert isinstance(codec, torch.nn.Module)
    before = [sorted(vars(module)) for module in codec.modules()]
    latents_FCHW = random_latents(1, codec.facts, seed=6)
    codec.decode(latents_FCHW, codec.initial_state())
    num_frames = codec.facts.num_pixel_frames(1, is_first=True)
    codec.encode(random_pixels(num_frames, codec.facts, seed=6), codec.initial_state())
    assert [sorted(vars(module)) for module in codec.modules()] == before


@every_codec
def test_frames_that_do_not_fill_the_chunk_are_refused(make: Maker) -> None:
    codec = made(make)
    pixels_TCHW = random_pixels(2, codec.facts, seed=7)
    with pytest.raises(ValueError, match="2 pixel frames"):
        codec.encode(pixels_TCHW, codec.initial_state())


@every_codec
def test_a_size_that_the_stride_does_not_divide_is_refused(make: Maker) -> None:
    codec = made(make)
    num_frames = codec.facts.num_pixel_frames(1, is_first=True)
    pixels_TCHW = random_pixels(num_frames, codec.facts, seed=8)[..., :-1]
    with pytest.raises(ConfigError, match="does not divide"):
        codec.encode(pixels_TCHW, codec.initial_state())

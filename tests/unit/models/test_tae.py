"""The tiny autoencoder: equal to the published network run frame by frame, published names, range.

Shapes: T pixel frames, F latent frames, C channels, D features, H W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from streamgen.errors import CheckpointError
from streamgen.models.wan.tae import TAEW_21, TaeCodec, TaeConfig, load_tae
from tests.small_codecs import CPU, SMALL_TAE, random_latents, random_pixels, small_tae

TOLERANCE = 1e-5  # float32
ENCODER = "conv relu pool2 down mem mem mem pool2 down mem mem mem pool1 down mem mem mem conv"
DECODER = (
    "clamp conv relu mem mem mem up grow1 conv mem mem mem up grow2 conv"
    " mem mem mem up grow2 conv relu conv"
)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


class FrameByFrame:
    """The definition: one frame through one published layer at a time, weights by their names."""

    def __init__(self, layers: str, prefix: str, weights: dict[str, Tensor]) -> None:
        self._layers = layers.split()
        self._prefix = prefix
        self._weights = weights
        self._past: dict[int, Tensor] = {}
        self._waiting: dict[int, list[Tensor]] = {}

    def push(self, frame_DHW: Tensor, index: int = 0) -> list[Tensor]:
        """The frames that come out when this one has gone in at layer `index`."""
        if index == len(self._layers):
            return [frame_DHW]
        outputs: list[Tensor] = []
        for result in self._layer(index, frame_DHW):
            outputs += self.push(result, index + 1)
        return outputs

    def _layer(self, index: int, frame: Tensor) -> list[Tensor]:
        kind = self._layers[index]
        if kind == "relu":
            return [frame.relu()]
        if kind == "clamp":
            return [3 * torch.tanh(frame / 3)]
        if kind == "up":
            return [frame.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)]
        if kind == "mem":
            past = self._past.get(index, torch.zeros_like(frame))
            self._past[index] = frame
            hidden = self._conv(f"{index}.conv.0", torch.cat([frame, past])).relu()
            hidden = self._conv(f"{index}.conv.2", hidden).relu()
            return [(self._conv(f"{index}.conv.4", hidden) + frame).relu()]
        if kind.startswith("pool"):
            waiting = self._waiting.setdefault(index, [])
            waiting.append(frame)
            if len(waiting) < int(kind[-1]):
                return []
            joined = torch.cat(waiting)
            waiting.clear()
            return [self._conv(f"{index}.conv", joined)]
        if kind.startswith("grow"):
            return list(self._conv(f"{index}.conv", frame).chunk(int(kind[-1])))
        return [self._conv(str(index), frame, stride=2 if kind == "down" else 1)]

    def _conv(self, name: str, frame: Tensor, stride: int = 1) -> Tensor:
        weight = self._weights[f"{self._prefix}.{name}.weight"]
        bias = self._weights.get(f"{self._prefix}.{name}.bias")
        padding = weight.shape[-1] // 2
        return functional.conv2d(frame[None], weight, bias, stride=stride, padding=padding)[0]


def run(network: FrameByFrame, frames: Tensor) -> Tensor:
    return torch.stack([result for frame in frames for result in network.push(frame)])


def test_decoding_equals_the_published_network_frame_by_frame() -> None:
    """Three frames are trimmed at the start; pixels move from [0, 1] to [-1, 1]."""
    tae = small_tae()
    latents_FCHW = random_latents(4, tae.facts, seed=0)
    published_TCHW = run(FrameByFrame(DECODER, "decoder", tae.state_dict()), latents_FCHW)
    expected_TCHW = published_TCHW[3:].clamp(0, 1) * 2 - 1
    state, parts = tae.initial_state(), []
    for part in latents_FCHW.split([1, 2, 1]):
        pixels_TCHW, state = tae.decode(part, state)
        parts.append(pixels_TCHW)
    assert [len(part) for part in parts] == [1, 8, 4]
    torch.testing.assert_close(torch.cat(parts), expected_TCHW, atol=TOLERANCE, rtol=0)


def test_encoding_whole_groups_equals_the_published_network_frame_by_frame() -> None:
    tae = small_tae()
    pixels_TCHW = random_pixels(12, tae.facts, seed=1)
    network = FrameByFrame(ENCODER, "encoder", tae.state_dict())
    expected_FCHW = run(network, (pixels_TCHW + 1) / 2)
    first_FCHW, state = tae.encode_groups(pixels_TCHW[:4], tae.initial_state())
    rest_FCHW, _ = tae.encode_groups(pixels_TCHW[4:], state)
    latents_FCHW = torch.cat([first_FCHW, rest_FCHW])
    torch.testing.assert_close(latents_FCHW, expected_FCHW, atol=TOLERANCE, rtol=0)


def test_a_stream_starts_with_its_first_picture_held() -> None:
    """1 + 4 (F - 1) frames make F latent frames, as the large autoencoder's do."""
    tae = small_tae()
    pixels_TCHW = random_pixels(5, tae.facts, seed=2)
    latents_FCHW, _ = tae.encode(pixels_TCHW, tae.initial_state())
    held_TCHW = torch.cat([pixels_TCHW[:1]] * 3 + [pixels_TCHW])
    expected_FCHW, _ = tae.encode_groups(held_TCHW, tae.initial_state())
    assert torch.equal(latents_FCHW, expected_FCHW)


def test_groups_that_are_not_whole_are_refused() -> None:
    tae = small_tae()
    with pytest.raises(ValueError, match="6 pixel frames do not divide"):
        tae.encode_groups(random_pixels(6, tae.facts, seed=3), tae.initial_state())


def test_names_and_shapes_are_the_published_ones() -> None:
    """Taken from the definition of the network in taehv.py, at its published sizes."""
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in TaeCodec(TAEW_21).state_dict().items()}
    expected = expected_shapes(ENCODER, "encoder", [3, *[64] * 17, 16])
    decoder_widths = [16, 16, *[256] * 7, *[128] * 6, *[64] * 8, 3]
    expected |= expected_shapes(DECODER, "decoder", decoder_widths)
    assert shapes == expected


def expected_shapes(layers: str, prefix: str, widths: list[int]) -> dict[str, tuple[int, ...]]:
    """Every weight's shape; `widths[i]` features enter layer i and `widths[i + 1]` leave it.

    Convolutions have a bias where they stand first or last or follow the clamp; those that change
    the size, and those between two resolutions, have none.
    """
    kinds = layers.split()
    shapes: dict[str, tuple[int, ...]] = {}
    for index, kind in enumerate(kinds):
        name, num_in, num_out = f"{prefix}.{index}", widths[index], widths[index + 1]
        if kind in ("conv", "down"):
            shapes[f"{name}.weight"] = (num_out, num_in, 3, 3)
            if kind == "conv" and (index < 2 or index == len(kinds) - 1):
                shapes[f"{name}.bias"] = (num_out,)
        elif kind == "mem":
            for position, factor in ((0, 2), (2, 1), (4, 1)):
                shapes[f"{name}.conv.{position}.weight"] = (num_out, factor * num_in, 3, 3)
                shapes[f"{name}.conv.{position}.bias"] = (num_out,)
        elif kind.startswith("pool"):
            shapes[f"{name}.conv.weight"] = (num_out, num_in * int(kind[-1]), 1, 1)
        elif kind.startswith("grow"):
            shapes[f"{name}.conv.weight"] = (num_out * int(kind[-1]), num_in, 1, 1)
    return shapes


def load(tensors: dict[str, Tensor], config: TaeConfig = SMALL_TAE) -> TaeCodec:
    return load_tae(tensors, source="tae.pth", config=config, device=CPU, dtype=torch.float32)


def test_a_loaded_codec_makes_the_pictures_of_the_saved_one() -> None:
    tae = small_tae()
    loaded = load(tae.state_dict())
    latents_FCHW = random_latents(2, tae.facts, seed=4)
    pixels_TCHW, _ = tae.decode(latents_FCHW, tae.initial_state())
    same_TCHW, _ = loaded.decode(latents_FCHW, loaded.initial_state())
    assert torch.equal(pixels_TCHW, same_TCHW)


def test_files_that_do_not_fit_are_refused_by_name() -> None:
    tensors = small_tae().state_dict()
    with pytest.raises(CheckpointError, match=r"tae\.pth: decoder\.1\.bias is missing"):
        load({name: tensor for name, tensor in tensors.items() if name != "decoder.1.bias"})
    with pytest.raises(CheckpointError, match=r"decoder\.99\.bias is unexpected"):
        load(tensors | {"decoder.99.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"is \(.*\), the model needs \(.*taew2_1"):
        load(tensors, TAEW_21)

"""Mixes, transitions and negative prompts, as streams of the package's model use them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamgen import Host, Stream
from streamgen.errors import ConfigError
from streamgen.serving.prompts import PromptPart, parts_of
from streamgen.types import Pixels

SMALL = ("picture.height=64", "picture.width=64", "model.num_threads=1")
CLIP = 4  # frames of a chunk
BALL, STAR = "a red ball over a green field", "a blue star over the sea at night"


def clips(stream: Stream, count: int) -> list[Pixels]:
    return [np.stack([next(stream).pixels for _ in range(CLIP)]) for _ in range(count)]


def film(host: Host, *prompts: str) -> list[Pixels]:
    """One chunk under each prompt, each switched to at once."""
    with Stream(host, prompt=prompts[0]) as stream:
        shown = clips(stream, 1)
        for prompt in prompts[1:]:
            stream.prompt = prompt
            shown += clips(stream, 1)
        return shown


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red ball", [("a red ball", 1.0)]),
        ("ratio 4:3 | wide", [("ratio 4:3 | wide", 1.0)]),
        ("{a red ball}", [("a red ball", 1.0)]),
        ("{a red ball: 2 | a star}", [("a red ball", 2.0), ("a star", 1.0)]),
        (" {a: b: .5|c:1e-1|d : 0} ", [("a: b", 0.5), ("c", 0.1), ("d", 0.0)]),
    ],
)
def test_braces_make_a_mix(prompt: str, parts: list[tuple[str, float]]) -> None:
    assert parts_of(prompt) == tuple(PromptPart(*part) for part in parts)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{}", "a prompt of the mix is empty"),
        ("{a ball | }", "a prompt of the mix is empty"),
        ("{a ball: 0 | a star: 0}", "no weight above 0"),
        ("{a ball: -1 | a star}", "is no number from 0 on"),
        ("{a ball: 1e999 | a star}", "is no number from 0 on"),
        ("{a ball: 1.2.3 | a star}", "is no number from 0 on"),
        ("{a ball | xyzzy}", "knows no word of the prompt 'xyzzy'"),
    ],
)
def test_a_mix_that_cannot_be_meant_is_refused(host: Host, prompt: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Stream(host, prompt=prompt)


def test_a_mix_of_one_weight_is_that_prompt(host: Host) -> None:
    plain, mixed = film(host, BALL, BALL), film(host, f"{{{BALL}: 3 | {STAR}: 0}}", BALL)
    assert np.array_equal(plain, mixed)


def test_a_mix_differs_from_each_of_its_prompts(host: Host) -> None:
    mix = film(host, f"{{{BALL} | {STAR}}}")
    assert not np.array_equal(mix, film(host, BALL))
    assert not np.array_equal(mix, film(host, STAR))


def test_a_transition_is_a_mix_that_moves_by_a_step_a_chunk(host: Host) -> None:
    """Over four chunks: a quarter, a half, three quarters, all of the new prompt."""
    mixes = [f"{{{BALL}: {4 - step} | {STAR}: {step}}}" for step in range(1, 4)]
    wanted = film(host, BALL, *mixes, STAR, STAR)
    with Stream(host, prompt=BALL) as stream:
        shown = clips(stream, 1)
        stream.change_prompt(STAR, over_chunks=4)
        assert stream.prompt == STAR
        shown += clips(stream, 5)
    assert np.array_equal(shown, wanted)


def test_a_transition_that_is_overtaken_goes_on_from_where_it_was(host: Host) -> None:
    """Half way to the star, then half way back: a quarter of the star is left."""
    with Stream(host, prompt=BALL) as stream:
        clips(stream, 1)
        stream.change_prompt(STAR, over_chunks=2)
        clips(stream, 1)
        stream.change_prompt(BALL, over_chunks=2)
        clips(stream, 1)
        (current_MD,) = host.prompts._current.values()
        wanted_MD = host.prompts.features(f"{{{BALL}: 3 | {STAR}: 1}}")
        torch.testing.assert_close(current_MD, wanted_MD, atol=1e-6, rtol=0)
        clips(stream, 1)
        (current_MD,) = host.prompts._current.values()
        assert torch.equal(current_MD, host.prompts.features(BALL))


def test_a_setting_makes_every_switch_a_transition() -> None:
    settings = ("prompts.transition_chunks=2", "prompts.blend=slerp")
    with Host("tiny-cpu", overrides=(*SMALL, *settings)) as host:
        with Stream(host, prompt=BALL) as stream:
            shown = clips(stream, 1)
            stream.prompt = STAR
            shown += clips(stream, 2)
        with Stream(host, prompt=BALL) as stream:
            wanted = clips(stream, 1)
            stream.change_prompt(f"{{{BALL} | {STAR}}}", over_chunks=0)
            wanted += clips(stream, 1)
            stream.change_prompt(STAR, over_chunks=1)
            wanted += clips(stream, 1)
        assert np.array_equal(shown, wanted)
        assert not host.prompts._transitions


def test_a_closed_stream_leaves_no_prompt_behind(host: Host) -> None:
    bank = host.pipeline.engine._executor._stage.prompts  # type: ignore[attr-defined]
    for _ in range(3):
        with Stream(host, prompt=BALL) as stream:
            clips(stream, 1)
            stream.change_prompt(STAR, over_chunks=8)
            clips(stream, 2)
    host.tick()
    assert len(bank) <= 2
    assert not host.prompts._current


@pytest.mark.parametrize("chunks", [-1, 1001])
def test_a_transition_has_a_length(host: Host, chunks: int) -> None:
    with (
        Stream(host, prompt=BALL) as stream,
        pytest.raises(ConfigError, match="is not in 0 to 1000"),
    ):
        stream.change_prompt(STAR, over_chunks=chunks)


def test_a_negative_prompt_counts_where_there_is_guidance_and_is_refused_elsewhere() -> None:
    guided = ("denoise.guidance=full", "denoise.guidance_scale=3")
    films: list[list[Pixels]] = []
    for negative in ("", "a red ball"):
        settings = (*SMALL, *guided, f"prompts.negative={negative}")
        with Host("tiny-cpu", overrides=settings) as host:
            films.append(film(host, BALL))
    assert not np.array_equal(films[0], films[1])
    with pytest.raises(ConfigError, match=r"prompts\.negative .* has no effect with .* \"none\""):
        Host("tiny-cpu", overrides=(*SMALL, "prompts.negative=a red ball"))


def test_without_guidance_the_model_is_not_run_for_a_negative_prompt(host: Host) -> None:
    bank = host.pipeline.engine._executor._stage.prompts  # type: ignore[attr-defined]
    before = len(bank)
    with Stream(host, prompt="a green box over the desert") as stream:
        clips(stream, 1)
        assert len(bank) <= before + 1


def test_a_model_without_loras_says_so(host: Host) -> None:
    assert host.lora_scales == {}
    with pytest.raises(ConfigError, match=r"no LoRA 'style'; loaded: none \(wan\.loras names"):
        host.set_lora_scales({"style": 1.0})


def test_features_are_encoded_once_a_prompt(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.prompts.features(BALL)

    def refuse(prompt: str) -> torch.Tensor:
        raise AssertionError(prompt)

    monkeypatch.setattr(host.pipeline.bundle.text, "encode", refuse)
    host.prompts.features(BALL)
    host.prompts.features(f"{{{BALL}: 1 | {BALL}: 2}}")

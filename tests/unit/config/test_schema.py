"""Ranges and combinations: what cannot work, or cannot take effect, is refused at load."""

import pytest

from streamgen.config.load import load_preset
from streamgen.errors import ConfigError

V2V = "tiny-cpu-v2v"
T2V = "tiny-cpu"
MOTION = ("noise_control.kind=motion", "noise_control.start_sigma=0.8")


@pytest.mark.parametrize(
    ("preset", "overrides", "words"),
    [
        (T2V, ["description=' '"], 'description = " " must not be empty'),
        (T2V, ["family=''"], 'family = "" must not be empty'),
        (T2V, ["model.weights=''"], 'model.weights = "" must not be empty'),
        (T2V, ["model.num_threads=-1"], "model.num_threads = -1 must be in [0, 1024]; use 0"),
        (T2V, ["picture.height=8"], "picture.height = 8 must be in [16, 8192]; use 16"),
        (T2V, ["picture.width=17"], "picture.width = 17 must be even; use 18"),
        (T2V, ["picture.fps=0"], "picture.fps = 0.0 must be in [1, 240]; use 1"),
        (T2V, ["picture.fps=nan"], "picture.fps = nan must be in [1, 240]"),
        (T2V, ["picture.fps=inf"], "picture.fps = inf must be in [1, 240]; use 240"),
        (T2V, ["denoise.shift=0"], "denoise.shift = 0.0 must be in [0.01, 100]"),
        (T2V, ["denoise.timesteps=[]"], "must be at least one number"),
        (T2V, ["denoise.timesteps=[500, 500]"], "strictly falling"),
        (T2V, ["denoise.timesteps=[1001]"], "each in (0, 1000]"),
        (T2V, ["denoise.timesteps=[1000, 0]"], "each in (0, 1000]"),
        (T2V, ["denoise.timesteps=[nan]"], "each in (0, 1000]"),
        (T2V, ["denoise.timesteps=[1000, 0.5]"], "whole numbers with denoise.warp = true"),
        (T2V, ["denoise.chunk_frames=0"], "denoise.chunk_frames = 0 must be in [1, 64]; use 1"),
        (T2V, ["denoise.chunk_frames=2"], "multiple of denoise.chunk_frames = 2; use 2"),
        (T2V, ["denoise.guidance_scale=3"], 'has no effect with denoise.guidance = "none"'),
        (T2V, ["denoise.guidance_delta=0.5"], 'has no effect with denoise.guidance = "none"'),
        (T2V, ["denoise.guidance=full"], 'leaves denoise.guidance = "full" without effect'),
        (
            T2V,
            ["denoise.guidance=self", "denoise.guidance_scale=2"],
            'denoise.guidance = "self" needs an input video',
        ),
        (
            T2V,
            ["denoise.guidance=full", "denoise.guidance_scale=2", "denoise.guidance_delta=0.5"],
            'denoise.guidance_delta = 0.5 has no effect with denoise.guidance = "full"',
        ),
        (
            T2V,
            ["denoise.guidance=full", "denoise.guidance_scale=-1"],
            "denoise.guidance_scale = -1.0 must be in [0, 50]; use 0",
        ),
        (T2V, ["cache.sinks=-1"], "cache.sinks = -1 must be in [0, 256]; use 0"),
        (T2V, ["cache.ring=0"], "cache.ring = 0 must be in [1, 1024]; use 1"),
        (T2V, ["cache.context_timestep=1000"], "must be in [0, 1000)"),
        (T2V, ["cache.context_timestep=500"], "must be below the last of denoise.timesteps"),
        (T2V, ["cache.first_chunk=alone"], 'has no effect with cache.mode = "clean"'),
        (T2V, ["denoise.later_timesteps=[500]"], "from the first of them on; use [1000.0]"),
        (
            T2V,
            ["denoise.later_timesteps=[1000,500]"],
            "must be some, not all, of denoise.timesteps",
        ),
        (T2V, ["denoise.later_timesteps=[1000,700]"], "must be some, not all"),
        (V2V, ["denoise.later_timesteps=[1000]"], 'be followed with cache.mode = "per_step"'),
        (V2V, ["cache.context_timestep=10"], 'has no effect with cache.mode = "per_step"'),
        (
            V2V,
            ["cache.first_chunk=alone", "denoise.timesteps=[700]"],
            "has no effect with a single step",
        ),
        (T2V, MOTION[:1], 'noise_control.kind = "motion" has no effect with task'),
        (T2V, MOTION[1:], "noise_control.start_sigma = 0.8 has no effect with task"),
        (T2V, ["noise_control.condition_noise=0.1"], "condition_noise = 0.1 has no effect"),
        (V2V, ["noise_control.start_sigma=0"], "must be in (0, 1]"),
        (V2V, ["noise_control.condition_noise=2"], "must be in [0, 1]; use 1"),
        (T2V, ["engine.sessions=0"], "engine.sessions = 0 must be in [1, 1024]; use 1"),
        (T2V, ["engine.seed=-1"], "engine.seed = -1 must be in [0, 9223372036854775807]"),
        (T2V, ["engine.output_queue_clips=0"], "must be in [1, 1024]; use 1"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_with_its_remedy(
    preset: str, overrides: list[str], words: str
):
    with pytest.raises(ConfigError) as caught:
        load_preset(preset, overrides)
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"{preset}.toml with --set: ")
    assert "; " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        (V2V, MOTION),
        (V2V, ["noise_control.start_sigma=0.8", "noise_control.condition_noise=0.1"]),
        (V2V, ["denoise.guidance=self", "denoise.guidance_scale=1.4"]),
        (V2V, ["cache.first_chunk=alone"]),
        (V2V, ["denoise.warp=false", "denoise.timesteps=[700.5, 400]"]),
        (V2V, ["cache.mode=clean", "cache.context_timestep=100"]),
        (T2V, ["denoise.guidance=initialize", "denoise.guidance_scale=2"]),
        (T2V, ["denoise.chunk_frames=3", "cache.sinks=3", "cache.ring=18"]),
        (T2V, ["cache.sinks=0", "cache.ring=1"]),
        (T2V, ["picture.height=480", "picture.width=832"]),
    ],
)
def test_published_combinations_are_accepted(preset: str, overrides: list[str]):
    load_preset(preset, overrides)

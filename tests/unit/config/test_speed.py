"""What saves work is refused at load where it cannot take effect or would leave keys unwritten."""

import pytest

from streamgen.config.load import load_preset
from streamgen.errors import ConfigError

FOUR = "denoise.timesteps=[1000, 750, 500, 250]"
BLOCKS = "speed.reuse_blocks=[1, 4]"


@pytest.mark.parametrize(
    ("preset", "settings", "words"),
    [
        ("tiny-cpu", ["speed.clean_share=1.5"], "must be in [0, 1]; use 1"),
        ("tiny-cpu", ["speed.clean_share=nan"], "must be in [0, 1]"),
        ("tiny-cpu-v2v", ["speed.clean_share=0.5"], 'and it is "per_step"; set it to 1'),
        ("tiny-cpu", ["speed.reuse_steps=[1]"], "have an effect together only"),
        ("tiny-cpu", [BLOCKS], "have an effect together only"),
        ("tiny-cpu", ["speed.reuse_steps=[0]", BLOCKS], "must be rising steps from 1 to 1"),
        ("tiny-cpu", [FOUR, "speed.reuse_steps=[3, 1]", BLOCKS], "must be rising steps"),
        ("tiny-cpu", ["speed.reuse_steps=[1]", "speed.reuse_blocks=[4, 1]"], "a first block"),
        ("tiny-cpu", ["speed.reuse_steps=[1]", "speed.reuse_blocks=[1]"], "a first block"),
        ("tiny-cpu-v2v", ["speed.reuse_steps=[1]", BLOCKS], 'cache.mode is "per_step"'),
        ("tiny-cpu", ["speed.reuse_steps=[1.5]", BLOCKS], "speed.reuse_steps"),
    ],
)
def test_savings_that_cannot_be_followed_are_refused(
    preset: str, settings: list[str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(preset, settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_savings_that_can_be_followed_are_taken() -> None:
    speed = load_preset("tiny-cpu", [FOUR, "speed.reuse_steps=[1, 3]", BLOCKS]).speed
    assert (speed.reuse_steps, speed.reuse_blocks) == ((1, 3), (1, 4))
    assert speed.saves_work
    assert not load_preset("tiny-cpu").speed.saves_work

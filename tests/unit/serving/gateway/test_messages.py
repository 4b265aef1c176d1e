"""What a page may say, and what is refused."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis.strategies import binary, floats, text

from streamgen.errors import ConfigError
from streamgen.serving.gateway.messages import (
    Change,
    Pause,
    Shown,
    StampedPicture,
    Start,
    pack_picture,
    read_command,
    unpack_picture,
)


def test_commands_are_read_by_their_type():
    start = read_command('{"type": "start", "preset": "tiny", "prompt": "ice", "seed": 3}')
    assert start == Start(preset="tiny", prompt="ice", seed=3)
    assert read_command('{"type": "change", "strength": 0.5}') == Change(strength=0.5)
    assert read_command('{"type": "pause"}') == Pause()
    assert read_command('{"type": "shown"}') == Shown()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", "Invalid JSON"),
        ("[]", "not a message"),
        ('{"type": "explode"}', "explode"),
        ('{"type": "start"}', "preset: Field required"),
        ('{"type": "start", "preset": "a", "prompt": 3}', "prompt"),
        ('{"type": "pause", "path": "/etc/passwd"}', "path: Extra inputs"),
        ('{"type": "change", "seed": "one"}', "seed"),
        ('{"type": "change", "steps": 2.5}', "steps"),
        (json.dumps({"type": "change", "prompt": "x" * 30_000}), "at most"),
    ],
)
def test_what_is_no_command_is_told_in_one_line(message: str, words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        read_command(message)
    assert len(str(caught.value).splitlines()) == 1


@given(text())
def test_no_text_breaks_the_reader(message: str):
    with suppress(ConfigError):
        read_command(message)


@given(stamp_ms=floats(allow_nan=False, allow_infinity=False), jpeg=binary(min_size=1))
def test_a_picture_comes_out_of_its_message_as_it_went_in(stamp_ms: float, jpeg: bytes):
    picture = StampedPicture(stamp_ms, jpeg)
    assert unpack_picture(pack_picture(picture)) == picture


@pytest.mark.parametrize("data", [b"", b"1234567", b"12345678"])
def test_a_message_too_short_for_a_picture_is_refused(data: bytes):
    with pytest.raises(ConfigError, match="holds no picture"):
        unpack_picture(data)


@pytest.mark.parametrize("stamp_ms", [math.nan, math.inf])
def test_a_time_that_is_none_is_refused(stamp_ms: float):
    with pytest.raises(ConfigError, match="send milliseconds"):
        unpack_picture(pack_picture(StampedPicture(stamp_ms, b"x")))

"""Prompts with times: what a file may say, and which one counts when."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import floats, lists

from streamgen.errors import ConfigError
from streamgen.serving.timeline import PromptTimeline, TimedPrompt, read_prompt_file

STORY = """\
\ufeff# a night in four lines

0:00 a red ball over a green field
0:10   a storm comes, at 4:20
1:02:03.5 the sun rises
0:09.25 clouds
"""


def test_a_file_has_a_prompt_a_line_in_any_order(tmp_path: Path):
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    assert read_prompt_file(path) == [
        TimedPrompt(0.0, "a red ball over a green field"),
        TimedPrompt(9.25, "clouds"),
        TimedPrompt(10.0, "a storm comes, at 4:20"),
        TimedPrompt(3723.5, "the sun rises"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "has no prompts; write lines as: 0:10 a storm comes"),
        (b"# only this\n", "has no prompts"),
        (b"0:10\n", ":1: '0:10' is no prompt"),
        (b"0:00 a ball\na storm\n", ":2: 'a storm' is no prompt; write: 0:10 a storm comes"),
        (b"0:60 a storm\n", ":1: '0:60 a storm' is no prompt"),
        (b"1:60:00 a storm\n", "is no prompt"),
        (b"-0:10 a storm\n", "is no prompt"),
        (b"0:10 " + b"x" * 3000, ":1: the prompt has 3000 characters, 2000 are allowed"),
        (b"0:10 a storm\n0:10.0 a calm\n", "has two prompts at 10 s; leave one"),
        (b"\xff\xfe0\x00", "is no text in UTF-8"),
        (b"# " + b"x" * 2_000_000, "is longer than 1000000 bytes"),
    ],
)
def test_what_a_file_cannot_mean_is_told_with_its_line(tmp_path: Path, text: bytes, words: str):
    path = tmp_path / "story.txt"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        read_prompt_file(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        read_prompt_file(tmp_path / "story.txt")
    with pytest.raises(ConfigError, match="directory"):
        read_prompt_file(tmp_path)


@given(times_s=lists(floats(0, 100), unique=True), looks_s=lists(floats(0, 120)))
def test_at_every_look_the_newest_prompt_counts_once(times_s: list[float], looks_s: list[float]):
    timeline = PromptTimeline([TimedPrompt(time_s, f"{time_s}") for time_s in times_s])
    counts: str | None = None
    for look_s in sorted(looks_s):
        counts = timeline.due(look_s) or counts
        past = [time_s for time_s in times_s if time_s <= look_s + 1e-6]
        assert counts == (f"{max(past)}" if past else None)
        assert timeline.due(look_s) is None

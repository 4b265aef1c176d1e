"""Presets, files and overrides: what is read is what was written, or a one-line complaint."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import characters, floats, integers, lists, text

from streamgen.config.load import list_presets, load_file, load_preset
from streamgen.errors import ConfigError


def complaint(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_preset("tiny-cpu", overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_preset_loads_and_is_listed_by_name():
    infos = list_presets()
    names = [info.name for info in infos]
    assert names == sorted(names)
    assert {"tiny-cpu", "tiny-cpu-v2v"} <= set(names)
    for info in infos:
        config = load_preset(info.name)
        assert (config.task, config.family) == (info.task, info.family)
        assert config.description == info.description


def test_every_file_in_configs_is_a_preset():
    root = Path(__file__).resolve().parents[3]
    files = {path.stem for path in (root / "configs").glob("*.toml")}
    assert files == {info.name for info in list_presets()}


def test_an_unknown_preset_is_answered_with_the_nearest_and_where_to_look():
    with pytest.raises(ConfigError, match=r"no preset 'tiny-gpu'; did you mean 'tiny-cpu'\?"):
        load_preset("tiny-gpu")
    with pytest.raises(ConfigError, match="`streamgen presets` lists all"):
        load_preset("../../etc/passwd")


def test_a_file_gives_the_same_settings_as_the_preset(tmp_path: Path):
    root = Path(__file__).resolve().parents[3]
    copy = tmp_path / "mine.toml"
    copy.write_text((root / "configs" / "tiny-cpu.toml").read_text())
    assert load_file(copy) == load_preset("tiny-cpu")


@given(sinks=integers(0, 256), fps=floats(1, 240), seed=integers(0, 2**63 - 1))
def test_overrides_take_effect_with_their_types(sinks: int, fps: float, seed: int):
    config = load_preset(
        "tiny-cpu", [f"cache.sinks={sinks}", f" picture.fps = {fps!r} ", f"engine.seed={seed}"]
    )
    assert (config.cache.sinks, config.picture.fps, config.engine.seed) == (sinks, fps, seed)
    assert type(config.picture.fps) is float


def test_a_whole_number_serves_as_float():
    fps = load_preset("tiny-cpu", ["picture.fps=24"]).picture.fps
    assert fps == 24.0
    assert type(fps) is float


@pytest.mark.parametrize("value", ["sequential", '"sequential"', "'sequential'"])
def test_strings_may_be_bare_or_quoted(value: str):
    assert load_preset("tiny-cpu", [f"engine.policy={value}"]).engine.policy == "sequential"


def test_a_value_may_contain_an_equals_sign():
    assert load_preset("tiny-cpu", ["model.weights=/a=b"]).model.weights == "/a=b"


def test_arrays_are_written_as_in_toml():
    config = load_preset("tiny-cpu", ["denoise.timesteps=[1000, 500]"])
    assert config.denoise.timesteps == (1000.0, 500.0)


def test_the_last_override_of_a_key_wins():
    config = load_preset("tiny-cpu", ["cache.sinks=2", "cache.sinks=3"])
    assert config.cache.sinks == 3


@given(
    levels=lists(integers(1, 1000), min_size=1, max_size=8, unique=True).map(
        lambda drawn: sorted(drawn, reverse=True)
    )
)
def test_any_falling_ladder_is_read_as_written(levels: list[int]):
    config = load_preset("tiny-cpu", [f"denoise.timesteps={levels}"])
    assert config.denoise.timesteps == tuple(levels)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cache.sink=2", "unknown key cache.sink; did you mean cache.sinks?"),
        ("sinks=2", "unknown key sinks; did you mean cache.sinks?"),
        ("cash.sinks=2", "unknown key cash; did you mean cache?"),
        ("zzz.zzz=2", "unknown key zzz; remove it"),
        ("cache.sinks=yes", 'cache.sinks must be integer, found string "yes"'),
        ("cache.sinks=2.5", "cache.sinks must be integer, found float 2.5"),
        ("engine.seed=true", "engine.seed must be integer, found boolean true"),
        ("picture.fps=true", "picture.fps must be float, found boolean true"),
        ("denoise.warp=1", "denoise.warp must be boolean, found integer 1"),
        ("model.weights=1", "model.weights must be string, found integer 1"),
        ("denoise.timesteps=1000", "denoise.timesteps must be array, found integer 1000"),
        ("denoise.timesteps=[1000, true]", "denoise.timesteps[1] must be float, found boolean"),
        ("cache=3", "cache must be section [cache], found integer 3"),
        ("cache.sinks.x=3", "cache.sinks is a value, not a section"),
        ("description={a = 1}", "description must be string, found section"),
        ("description=2026-01-02", "description must be string, found date or time"),
        ("picture.fps=1" + "0" * 400, "picture.fps is an integer too large for a float"),
        ("cache.mode=perstep", 'did you mean "per_step"?'),
        (
            "cache.mode=1",
            'must be one of "clean", "cascaded", "per_step", "recompute", "joint", found integer 1',
        ),
        ("cache.sinks", "is not section.key=value; write cache.sinks=2"),
        ("=2", "is not section.key=value; write cache.sinks=2"),
        ("cache..sinks=2", "is not section.key=value; write cache.sinks=2"),
    ],
)
def test_a_wrong_override_is_named_with_its_remedy(override: str, words: str):
    assert words in complaint(override)


@given(
    key=text(characters(exclude_categories=["Cs"]), max_size=12),
    value=text(characters(exclude_categories=["Cs"]), max_size=12),
)
def test_any_override_text_is_read_or_refused_in_one_line(key: str, value: str):
    message = ""
    try:
        load_preset("tiny-cpu", [f"cache.{key}={value}"])
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


def test_an_override_cannot_smuggle_in_a_second_key():
    config = load_preset("tiny-cpu", ['description="a"\nfamily="b"'])
    assert config.family == "tiny"


@pytest.mark.parametrize("text", ["[" * 5000, "9" * 5000], ids=["deep", "long"])
def test_text_that_toml_cannot_digest_is_a_bare_string(text: str):
    assert load_preset("tiny-cpu", [f"description={text}"]).description == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "key description is missing; add it (string)"),
        (b"x = ", "is not TOML: Invalid value"),
        (b"\xff\xfe", "is not UTF-8 text (byte 0)"),
        (b'"a\\nb" = 1', 'unknown key "a\\nb"'),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert words in str(caught.value)
    assert "broken.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_section_and_a_missing_key_are_named(tmp_path: Path):
    root = Path(__file__).resolve().parents[3]
    whole = (root / "configs" / "tiny-cpu.toml").read_text()
    path = tmp_path / "partial.toml"
    path.write_text(re.sub(r"(?m)^ring = .*\n", "", whole))
    with pytest.raises(ConfigError, match=r"key cache\.ring is missing; add it \(integer\)"):
        load_file(path)
    path.write_text(whole.partition("[engine]")[0])
    with pytest.raises(ConfigError, match=r"section \[engine\] is missing; add it"):
        load_file(path)


def test_a_missing_file_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file or directory; check the path"):
        load_file(tmp_path / "none.toml")

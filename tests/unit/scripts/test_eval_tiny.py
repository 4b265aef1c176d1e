"""The measures of the tiny model: intervals, controls, edges, held-out prompts, merged results."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from tiny_scores.pictures import MAX_PSNR_DB, edge_agreement, look_of, psnr_db
from tiny_scores.prompts import held_out_prompts, names_everything, true_clip
from tiny_scores.results import Results
from tiny_scores.shares import Share, agreement, shuffled_agreement, strangers, wilson_interval
from tiny_scores.sheets import NUM_COLUMNS, Row, write_sheet
from tiny_scores.streams import ClipSource
from tiny_scores.switch import STEP_FRAMES, changes, first_shown
from tiny_world.scene import SMALL
from tiny_world.styles import STYLES


def noise(seed: int, frames: int = 2, side: int = 64) -> np.ndarray:
    shape = (frames, side, side, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@given(samples=integers(1, 500), data=integers(0, 10**6))
def test_an_interval_holds_its_share_and_lies_in_0_to_1(samples, data):
    hits = data % (samples + 1)
    low, high = wilson_interval(hits, samples)
    assert 0 <= low <= hits / samples <= high <= 1
    assert low < high


def test_an_interval_is_that_of_the_formula():
    """Brown, Cai and DasGupta 2001, and any table: 8 of 10 is 0.490 to 0.943."""
    low, high = wilson_interval(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_samples_narrow_an_interval():
    widths = [np.diff(wilson_interval(n // 2, n))[0] for n in (4, 16, 64, 256)]
    assert all(wide > narrow for wide, narrow in pairwise(widths))


def test_impossible_counts_are_refused():
    for hits, samples in ((3, 2), (-1, 2), (1, 0)):
        with pytest.raises(ValueError, match="cannot be"):
            wilson_interval(hits, samples)


@given(samples=integers(2, 100))
def test_every_sample_has_one_stranger_and_is_nobodys_own(samples):
    others = strangers(samples)
    assert sorted(others) == list(range(samples))
    assert all(index != other for index, other in enumerate(others))


def test_one_sample_has_no_stranger():
    with pytest.raises(ValueError, match="at least two"):
        strangers(1)


def test_the_control_compares_with_another_prompt():
    wanted = [{"colour": "red"}, {"colour": "blue"}, {"colour": "green"}]
    assert agreement(wanted, wanted, ["colour"]) == {"colour": Share(3, 3)}
    assert shuffled_agreement(wanted, wanted, ["colour"]) == {"colour": Share(0, 3)}
    moved = [wanted[1], wanted[2], wanted[0]]
    assert agreement(wanted, moved, ["colour"]) == {"colour": Share(0, 3)}
    assert shuffled_agreement(wanted, moved, ["colour"]) == {"colour": Share(3, 3)}


def test_what_was_not_seen_is_wrong():
    assert agreement([{"shape": "box"}], [{"shape": None}], ["shape"]) == {"shape": Share(0, 1)}


def test_equal_clips_agree_in_all_edges():
    for clip in (noise(0), true_clip(held_out_prompts(SMALL, 1, style=False)[0].scene, 0, 2)):
        assert edge_agreement(clip, clip) == 1
        assert psnr_db(clip, clip) == MAX_PSNR_DB


def test_unrelated_clips_agree_in_few_edges():
    assert edge_agreement(noise(0), noise(1)) < 0.5


def test_edges_survive_another_contrast():
    clip = true_clip(held_out_prompts(SMALL, 1, style=False)[0].scene, 0, 2)
    assert edge_agreement(clip, (40 + clip * 0.5).astype(np.uint8)) > 0.9
    assert edge_agreement(clip, 255 - clip) > 0.9


def test_a_flat_picture_has_no_edges():
    flat = np.full_like(noise(0), 90)
    assert edge_agreement(flat, noise(0)) == 0
    assert edge_agreement(flat, flat) == 1


def test_clips_of_two_forms_are_not_compared():
    with pytest.raises(ValueError, match="differ in form"):
        edge_agreement(noise(0, frames=2), noise(0, frames=3))


def test_a_look_tells_a_flat_grey_frame_from_a_sharp_one():
    flat = np.full((32, 32, 3), 120, np.uint8)
    look = look_of(flat, flat)
    assert (look.sharpness, look.contrast, look.saturation, look.change) == (0, 0, 0, 0)
    assert look.red == look.green == look.blue == 120
    assert look_of(noise(0)[0], None).sharpness > 1000


def test_held_out_prompts_name_everything_and_do_not_depend_on_their_number():
    for style in (False, True):
        prompts = held_out_prompts(SMALL, 12, style=style)
        assert held_out_prompts(SMALL, 5, style=style) == prompts[:5]
        assert all(names_everything(prompt.text, prompt.scene) for prompt in prompts)
        assert all((prompt.scene.style != "none") == style for prompt in prompts)
    assert {prompt.scene.style for prompt in prompts} == set(STYLES) - {"none"}


def test_a_sentence_that_leaves_something_out_is_no_held_out_prompt():
    scene = replace(
        held_out_prompts(SMALL, 1, style=False)[0].scene,
        colour="red", shape="ball", motion="circling", background="city", time_of_day="night",
    )  # fmt: skip
    assert names_everything("a crimson orb orbiting above the city skyline after dark", scene)
    assert not names_everything("a crimson orb orbiting above the city skyline", scene)
    assert not names_everything("a crimson orb above the city skyline after dark", scene)


def test_a_switch_changes_one_attribute():
    prompts = held_out_prompts(SMALL, 8, style=False)
    for change in changes(prompts, "background", SMALL):
        assert change.old.background != change.new.background
        assert replace(change.new, background=change.old.background) == change.old


def test_a_new_value_is_shown_from_the_first_of_two_windows_in_a_row():
    def seen(colours: str) -> list[dict[str, str | None]]:
        return [{"colour": colour} for colour in colours]

    assert first_shown(seen("rbrbb"), "colour", "b") == 3 * STEP_FRAMES
    assert first_shown(seen("bb"), "colour", "b") == 0
    assert first_shown(seen("rbrbr"), "colour", "b") is None
    assert first_shown([], "colour", "b") is None


def test_a_clip_is_a_source_that_ends():
    clip = noise(3, frames=3)
    source = ClipSource(clip, fps=8)
    frames = [source.read() for _ in range(4)]
    assert frames[3] is None
    assert [frame.pts_s for frame in frames if frame] == [0, 0.125, 0.25]
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames if frame]), clip)


def test_results_of_one_model_add_up_and_those_of_another_are_dropped(tmp_path):
    path = tmp_path / "deep" / "scores.json"
    Results(path, {"weights": "one"}).put("scores", "4", {"x": 1})
    Results(path, {"weights": "one"}).put("scores", "2", {"x": 2})
    both = Results(path, {"weights": "one"})
    assert both.parts == {"scores": {"4": {"x": 1}, "2": {"x": 2}}}
    assert both.entry("scores", "4") == {"x": 1}
    assert both.entry("drift", "preset") is None
    assert Results(path, {"weights": "two"}).parts == {}


def test_a_sheet_has_a_row_for_each_clip_and_a_line_for_each_row(tmp_path):
    rows = [Row("a red ball", noise(0, 10)), Row("a blue box", noise(1, 4))]
    write_sheet(tmp_path, "sheet", rows)
    assert (tmp_path / "sheet.txt").read_text().splitlines() == [" 1  a red ball", " 2  a blue box"]
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None
    assert picture.shape == (2 * 67, NUM_COLUMNS * 67, 3)

"""The tiny model's world is periodic, describes itself in known words, and can be measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from tiny_world.captions import COLOURS, MAX_WORDS, canonical_prompt, caption
from tiny_world.objects import OBJECT_COLOURS
from tiny_world.photos import load_pictures, photo_clip
from tiny_world.render import render
from tiny_world.scene import FULL, PERIOD_FRAMES, SMALL, Scene, World, sample_scene
from tiny_world.scorer import score_clip
from tiny_world.styles import STYLES, apply_style, style_caption
from tiny_world.validation import validate
from tiny_world.vocabulary import VOCABULARY, split_words, tokenize

WORLDS = pytest.mark.parametrize("world", [SMALL, FULL], ids=["small", "full"])


def draw(num_scenes: int, world: World = SMALL, seed: int = 1) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, world) for _ in range(num_scenes)]


def hue(rgb: tuple[int, int, int]) -> float:
    """Degrees."""
    return float(cv2.cvtColor(np.asarray([[rgb]], np.float32) / 255, cv2.COLOR_RGB2HSV)[0, 0, 0])


@WORLDS
def test_a_frame_depends_on_the_scene_and_its_index_alone(world):
    for scene in draw(12, world):
        whole = render(scene, 5, 12)
        assert whole.shape == (12, 128, 128, 3)
        assert whole.dtype == np.uint8
        np.testing.assert_array_equal(whole[7:], render(scene, 12, 5))


def test_a_scene_without_pan_is_back_after_one_period():
    for scene in draw(12, replace(FULL, pans=("none",))):
        np.testing.assert_array_equal(render(scene, 3, 2), render(scene, 3 + PERIOD_FRAMES, 2))


def test_every_scene_of_the_small_world_starts_near_the_centre():
    for scene in draw(40):
        place = _centre_of_object(scene)
        assert np.abs(place - 64).max() < 32


def _centre_of_object(scene: Scene) -> np.ndarray:
    """Middle of what changes with the colour of the object: x, y in px."""
    one, other = (
        render(replace(scene, colour=colour), 0, 1)[0].astype(int)
        for colour in COLOURS.keys() & {"red", "blue"}
    )
    y, x = np.nonzero(np.abs(one - other).max(2) > 30)
    return np.array([x.mean(), y.mean()])


@WORLDS
def test_colours_of_objects_are_far_apart(world):
    hues = sorted(hue(OBJECT_COLOURS[name]) for name in world.colours)
    gaps = np.diff([*hues, hues[0] + 360])
    assert gaps.min() > (22 if world is SMALL else 18)


def test_backgrounds_of_the_small_world_are_paler_than_objects():
    for scene in draw(30):
        clip = render(replace(scene, colour="blue", diameter=0.02), 0, 1)[0].astype(int)
        assert np.percentile(clip.max(2) - clip.min(2), 99) < 125


@WORLDS
def test_captions_use_known_words_only(world):
    rng = np.random.default_rng(2)
    for scene in draw(1500, world):
        for sentence in (caption(scene, rng), canonical_prompt(scene)):
            assert sentence == sentence.lower()
            assert all(word in VOCABULARY for word in split_words(sentence)), sentence
        assert 1 <= len(caption(scene, rng).split()) <= MAX_WORDS


def test_style_captions_use_known_words_only():
    rng = np.random.default_rng(3)
    for style in STYLES:
        words = [split_words(style_caption(style, rng)) for _ in range(60)]
        assert all(word in VOCABULARY for phrase in words for word in phrase)


def test_colour_and_shape_are_seldom_left_out():
    rng = np.random.default_rng(4)
    scenes = draw(1500)
    tokens = [(scene, tokenize(caption(scene, rng))) for scene in scenes]
    assert (
        np.mean([scene.colour in words and scene.shape in words for scene, words in tokens]) > 0.9
    )
    assert np.mean([scene.motion in words for scene, words in tokens]) > 0.85
    assert np.mean([scene.background in words for scene, words in tokens]) > 0.85


def test_no_caption_names_a_wrong_attribute():
    """A background may be called green or blue; nothing else is said that is not so."""
    rng = np.random.default_rng(5)
    for scene in draw(1500):
        words = set(tokenize(caption(scene, rng)))
        assert not words & (set(SMALL.shapes) - {scene.shape})
        assert not words & (set(SMALL.motions) - {scene.motion})
        assert not words & (set(SMALL.times) - {scene.time_of_day})
        assert not words & (set(SMALL.colours) - {scene.colour, "green", "blue"})
        others = set(SMALL.backgrounds) - {scene.background}
        assert not words & (others - ({"field"} if scene.background == "snow" else set()))


def test_synonyms_mean_their_canonical_words():
    assert tokenize("A crimson Sphere, jumping over the meadow at midnight!") == tokenize(
        "a red ball bouncing over the field at night"
    )
    assert tokenize("a qwertz ball") == ["a", "ball"]


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_recognised_and_works_frame_by_frame(style):
    rng = np.random.default_rng(6)
    for scene in draw(8):
        clip = render(scene, 0, 4)
        styled = apply_style(clip, style)
        np.testing.assert_array_equal(styled[2:], apply_style(clip[2:], style))
        assert score_clip(styled).style == style
    assert style_caption(style, rng)


def test_scorer_recovers_the_ground_truth():
    """The bounds hold for sharp and for soft clips; a stranger's caption scores like chance."""
    results = validate(60, seed=7)
    for name, least in {"ground truth": 0.97, "softened": 0.93}.items():
        assert min(results[name].values()) >= least, (name, results[name])
    shuffled = results["shuffled"]
    assert max(shuffled[name] for name in ("colour", "shape", "motion", "background")) < 0.5


def test_photo_clips_move_slowly_and_have_the_size_asked_for(tmp_path):
    rng = np.random.default_rng(8)
    soft = cv2.GaussianBlur(rng.integers(0, 256, (200, 300, 3), np.uint8), (0, 0), 4)
    cv2.imwrite(str(tmp_path / "still.jpg"), soft)
    (tmp_path / "run_000").mkdir()
    for index in range(5):
        cv2.imwrite(str(tmp_path / "run_000" / f"{index:02d}.jpg"), soft)
    pictures = load_pictures(tmp_path)
    assert sorted(picture.ndim for picture in pictures) == [3, 4]
    for _ in range(6):
        clip = photo_clip(rng, pictures, 12)
        assert clip.shape == (12, 128, 128, 3)
        steps = np.abs(np.diff(clip.astype(int), axis=0)).mean()
        assert steps < 8

"""Every score and speed in README.md and in the model card is the one in `benchmarks/`.

Each sentence below is made from the JSON and must stand in the text as it is; who measures anew or
writes the sentence otherwise changes both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = "README.md"
CARD = "streamgen/models/tiny/weights/MODEL_CARD.md"
STRENGTHS = ("0.1", "0.4", "0.7", "1")


def measured(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))


SCORES: dict[str, Any] = measured("tiny-scores.json")["parts"]
SPEED: dict[str, Any] = measured("tiny-cpu-speed.json")


def at(*path: str) -> str:
    """A share as it is printed: .98, 1.00."""
    found: Any = SCORES
    for name in path:
        found = found[name]
    if isinstance(found, dict):
        found = found["share"]
    return f"{found:.2f}".removeprefix("0")


def score(steps: str, name: str, control: str = "prompt") -> str:
    kind = "styled" if name == "style" else "plain"
    return at("scores", steps, kind, control, name)


def bound(of: str, name: str) -> str:
    return at("bounds", "styled" if name == "style" else "plain", of, "prompt", name)


def row(label: str, *cells: str) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def readme_rows() -> list[str]:
    labels = {"colour": "object colour", "style": "style (100 prompts)"}
    return [
        row(
            labels.get(name, name),
            score("4", name),
            score("2", name),
            score("4", name, "shuffled"),
        )
        for name in ("colour", "shape", "motion", "background", "style")
    ]


def card_rows() -> list[str]:
    labels = {"colour": "object colour", "time_of_day": "time of day"}
    return [
        row(
            labels.get(name, name),
            *(score(steps, name) for steps in ("4", "2", "1")),
            bound("truth", name),
            bound("codec", name),
            score("4", name, "shuffled"),
        )
        for name in ("colour", "shape", "motion", "background", "time_of_day", "style")
    ]


def drift(name: str, window: str, when: str) -> str:
    return at("drift", window, when, "prompt", name)


def restyled(what: str, digits: int = 2) -> str:
    values = [SCORES["restyle"]["all"]["strengths"][strength][what] for strength in STRENGTHS]
    values = [value["share"] if isinstance(value, dict) else value for value in values]
    return " / ".join(f"{value:.{digits}f}".removeprefix("0") for value in values)


def unstyled(of: str, what: str, digits: int = 2) -> str:
    value = SCORES["restyle"]["all"][of][what]
    value = value["share"] if isinstance(value, dict) else value
    return f"{value:.{digits}f}".removeprefix("0")


def rate(task: str, steps: str) -> str:
    return f"{SPEED[task]['frames_per_second_by_steps'][steps]['median']:.0f}"


def readme_sentences() -> list[str]:
    text, video = "text-to-video", "video-to-video"
    warm_s = SPEED[text]["first_frame_warm_s"]["median"]
    cold_s = SPEED["first_frame_cold_s"]["median"]
    num_frames = SPEED["text-to-video memory"]["frames"]
    together = SPEED[text]["frames_per_second_by_streams"]["4"]["median"]
    edges = SCORES["restyle"]["all"]["strengths"]["0.4"]
    return [
        f"text to video {rate(text, '4')} at four steps, {rate(text, '2')} at two, "
        f"{rate(text, '1')} at one; video to video with guidance {rate(video, '4')} at four; "
        f"{together:.0f} in all for four streams at once.",
        f"First frame after {warm_s:.2f} s from a warm host, {cold_s:.1f} s from a cold "
        f"`streamgen run`. Memory does not grow over {num_frames:,} frames",
        f"shape is right in {drift('shape', 'preset', 'early')} and motion in "
        f"{drift('motion', 'preset', 'early')}, at frame 1,000 in "
        f"{drift('shape', 'preset', 'late')} and {drift('motion', 'preset', 'late')};",
        f"the object's colour in {at('first', 'with the picture', 'prompt', 'colour')} and its "
        f"shape in {at('first', 'with the picture', 'prompt', 'shape')} of 48.",
        f"(edge agreement {edges['edges']:.2f}, chance {edges['stranger_edges']:.2f})".replace(
            " 0.", " ."
        ),
    ]


def card_sentences() -> list[str]:
    content = ("colour", "motion", "shape")
    first = {name: at("first", "with the picture", "prompt", name) for name in content}
    without = [
        at("first", "without", "prompt", name)
        for name in ("background", "time_of_day", "colour", "motion", "shape")
    ]
    switched = [SCORES["switch"][name] for name in ("background", "colour", "shape")]
    hits = [round(one["shown"]["share"] * 16) for one in switched]
    waits = [f"{one['median_wait']:.0f}" for one in switched]
    at_end = ", ".join(str(round(one["new_at_end"]["share"] * 16)) for one in switched)

    def both(name: str, window: str) -> str:
        return f"{drift(name, window, 'early')} then {drift(name, window, 'late')}"

    def same(name: str, window: str = "preset") -> str:
        return f"{drift(name, window, 'early')} and {drift(name, window, 'late')}"

    scene = {name: at("scenes", "all", "at_end", name) for name in (*content, "time_of_day")}
    return [
        f"background and time {scene['time_of_day']}, colour {scene['colour']}, motion "
        f"{scene['motion']}, shape {scene['shape']} (for a while",
        f"within 96 frames: background in {hits[0]} (median wait {waits[0]} frames: with the next "
        f"chunk), colour in {hits[1]} ({waits[1]}), shape in {hits[2]} ({waits[2]}); still there "
        f"at the end: {at_end}.",
        f"colour {first['colour']}, motion {first['motion']}, shape {first['shape']} (without the "
        f"picture: {', '.join(without)}).",
        f"the right style is named in {restyled('style')} of the clips at strengths "
        f".1 / .4 / .7 / 1 (through the codec {unstyled('codec', 'style')}; doing nothing 0) and "
        f"is the nearest of all styles in {restyled('nearest').split(' / ')[0]};",
        f"PSNR to the true style {restyled('psnr_db', 1)} dB (doing nothing "
        f"{unstyled('do nothing', 'psnr_db', 1)}, codec {unstyled('codec', 'psnr_db', 1)});",
        f"edge agreement with the input {restyled('edges')} (true styles "
        f"{unstyled('truth', 'edges')}, unrelated pictures "
        f"{restyled('stranger_edges').split(' / ')[0]}).",
        f"background and time of day {same('background')}; colour {same('colour')}; shape "
        f"{same('shape')}; motion {same('motion')}",
        f"Without sinks (a ring of six): shape {both('shape', 'no sinks')}, motion "
        f"{both('motion', 'no sinks')}.",
        f"6 streams: shape {same('shape', 'whole past')}, motion {both('motion', 'whole past')}",
        f"The codec alone: real clips {SCORES['codec']['real clips']['psnr_db']:.1f} dB, its own "
        f"world {SCORES['codec']['own world']['psnr_db']:.1f} dB.",
    ]


CLAIMS = [
    *((README, claim) for claim in (*readme_rows(), *readme_sentences())),
    *((CARD, claim) for claim in (*card_rows(), *card_sentences())),
]


@pytest.mark.parametrize(("page", "claim"), CLAIMS)
def test_what_is_published_was_measured(page: str, claim: str):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert claim in text

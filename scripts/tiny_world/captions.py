"""Sentences that describe a scene, in many wordings; every word is in `VOCABULARY`."""

from __future__ import annotations

import numpy as np

from tiny_world.scene import Scene
from tiny_world.styles import style_phrase
from tiny_world.vocabulary import TOKENS, VOCABULARY, split_words, tokenize

__all__ = ["TOKENS", "VOCABULARY", "canonical_prompt", "caption", "split_words", "tokenize"]

MAX_WORDS = 20
CANONICAL_CHANCE = 0.4  # how often the plain word is used instead of a synonym

COLOURS = {
    "red": "crimson scarlet ruby cherry",
    "orange": "tangerine amber",
    "yellow": "golden lemon",
    "green": "emerald lime",
    "cyan": "turquoise teal aqua",
    "blue": "azure sapphire cobalt",
    "purple": "violet lilac",
    "pink": "magenta rose",
}
SHAPES = {
    "ball": "sphere orb",
    "box": "cube square block",
    "triangle": "pyramid",
    "star": "starfish",
    "heart": "valentine",
    "diamond": "gem rhombus",
    "ring": "hoop donut",
    "cross": "plus",
    "moon": "crescent",
    "flower": "blossom daisy",
}
SIZES = {"big": "large huge giant", "medium": "mid-sized", "small": "little tiny"}
MOTIONS = {  # the first is canonical; all fit behind "a red ball"
    "bouncing": ("bouncing", "bounces", "is bouncing", "bouncing up and down", "jumping", "hopping",
                 "bounces up and down", "jumps up and down", "leaping"),
    "swinging": ("swinging", "swings", "is swinging", "swinging left and right", "swaying",
                 "swings from side to side", "moving from left to right", "sliding back and forth",
                 "gliding from side to side"),
    "circling": ("circling", "circles", "is circling", "moving in circles", "orbiting", "looping",
                 "moves in circles", "circling around", "loops around"),
    "hovering": ("hovering", "hovers", "is hovering", "floating", "floats", "resting", "still",
                 "standing still", "levitating"),
    "spinning": ("spinning", "spins", "rotating", "is spinning", "twirling", "turning around"),
    "pulsing": ("pulsing", "pulses", "is pulsing", "growing and shrinking", "pulsating"),
    "zigzagging": ("zigzagging", "zigzags", "moving in a zigzag", "weaving left and right"),
}  # fmt: skip
PLACES = {  # the first is canonical; all fit behind "over"
    "field": ("a field", "a green field", "a meadow", "the grass", "green hills", "the meadow",
              "grassland", "a grassy field", "the hills"),
    "ocean": ("the ocean", "the sea", "the waves", "the water", "a blue ocean", "the blue sea",
              "waves"),
    "desert": ("the desert", "sand dunes", "the dunes", "a sandy desert", "the sand", "a desert"),
    "city": ("a city", "the city", "a town", "a skyline", "the skyscrapers", "the buildings",
             "a city street", "the town", "the city skyline"),
    "snow": ("the snow", "snowy mountains", "a snowy field", "the mountains", "a winter scene",
             "the snowy peaks", "the glacier"),
    "forest": ("a forest", "the woods", "the trees", "a pine forest", "the jungle"),
    "space": ("space", "outer space", "the galaxy", "the planets"),
    "underwater": ("a reef", "the seabed", "an underwater world", "the coral"),
}  # fmt: skip
NIGHTLY = {"day": ("daytime", "sunny", "bright"), "night": ("dark", "moonlit", "nighttime"),
           "sunset": ("evening", "sunset", "twilight")}  # fmt: skip
TIMES = {  # the first is canonical
    "day": ("during the day", "by day", "at noon", "in daylight", "in the sunshine",
            "in the morning", "at midday", "on a sunny day", "in the afternoon"),
    "night": ("at night", "after dark", "at midnight", "in the moonlight", "under the stars",
              "in the dark", "by night", "under a starry sky", "in the night"),
    "sunset": ("at sunset", "at dusk", "in the evening", "at sundown", "at twilight",
               "during sunset", "in the twilight"),
}  # fmt: skip
WEATHERS = {
    "rain": ("in the rain", "on a rainy day", "while it is raining", "in a rain shower"),
    "snowfall": ("in snowfall", "while it is snowing", "in a snowstorm", "with snowflakes"),
    "fog": ("in fog", "in the mist", "in foggy haze", "in the fog"),
}


def canonical_prompt(scene: Scene) -> str:
    """The one plain sentence: "a red ball bouncing over a field at night"."""
    parts = [_article(f"{scene.colour} {scene.shape}"), MOTIONS[scene.motion][0]]
    parts += ["over", PLACES[scene.background][0], TIMES[scene.time_of_day][0]]
    if scene.weather != "clear":
        parts.append(WEATHERS[scene.weather][0])
    if scene.pan != "none":
        parts.append(f"camera panning {scene.pan}")
    if scene.style != "none":
        parts.append(style_phrase(scene.style))
    return " ".join(parts)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of very many sentences for the scene: lower case, at most 20 words.

    Motion, place, time: each left out in 7 % of the sentences; colour in 4 %, shape in 3 %.
    """
    while True:
        sentence = _compose(scene, rng)
        if len(sentence.split()) <= MAX_WORDS:
            return sentence


def _compose(scene: Scene, rng: np.random.Generator) -> str:
    has_motion, has_place, has_time = rng.random(3) > 0.07
    noun = "object" if rng.random() < 0.03 else _word(rng, scene.shape, SHAPES)
    colour = "" if rng.random() < 0.04 else _word(rng, scene.colour, COLOURS)
    size_chance = 0.08 if scene.size == "big" else 0.6
    size = _word(rng, scene.size, SIZES) if rng.random() < size_chance else ""
    thing = " ".join(word for word in (size, colour, noun) if word)
    motion = _choose(rng, MOTIONS[scene.motion]) if has_motion else ""
    place = _choose(rng, PLACES[scene.background]) if has_place else ""
    time = _choose(rng, TIMES[scene.time_of_day]) if has_time else ""
    preposition = _choose(
        rng, ("over", "over", "above", "in front of" if rng.random() < 0.3 else "over")
    )
    if scene.background in ("field", "desert", "snow") and rng.random() < 0.15:
        preposition = "on"
    where = f"{preposition} {place}" if place else ""
    sentence = _arrange(rng, scene, thing, motion, where, time)
    return " ".join((sentence + _extras(scene, rng)).split()).strip(", ")


def _arrange(
    rng: np.random.Generator, scene: Scene, thing: str, motion: str, where: str, time: str
) -> str:
    """Put the phrases in one of seven orders."""
    subject = _article(thing)
    match int(rng.choice(7, p=(0.40, 0.12, 0.12, 0.12, 0.10, 0.08, 0.06))):
        case 0:
            return f"{subject} {motion} {where} {time}"
        case 1 if time:
            return f"{time} {subject} {motion} {where}"
        case 2 if where:
            return f"{where} {subject} {motion} {time}"
        case 3 if motion:
            return f"{_article(f'{scene.motion} {thing}')} {where} {time}"
        case 4 if where:
            bare = where.removeprefix("in front of").removeprefix("over").removeprefix("above")
            return f"{bare.removeprefix('on ').strip()} {time} with {subject} {motion}"
        case 5 if where and time:
            adjective = _choose(rng, NIGHTLY[scene.time_of_day])
            return f"{subject} {motion} over {_article(f'{adjective} {scene.background}')}"
        case 6:
            tags = (thing, scene.motion if motion else "", scene.background if where else "",
                    scene.time_of_day if time else "")  # fmt: skip
            return ", ".join(tag for tag in tags if tag)
        case _:
            return f"{subject} {motion} {where}, {time}"


def _extras(scene: Scene, rng: np.random.Generator) -> str:
    parts = ""
    if scene.weather != "clear":
        parts += " " + _choose(rng, WEATHERS[scene.weather])
    if scene.pan != "none" and rng.random() < 0.8:
        parts += (
            _choose(rng, (", camera panning", ", the camera pans", ", panning")) + f" {scene.pan}"
        )
    if scene.style != "none":
        parts += ", " + style_phrase(scene.style, rng)
    return parts


def _choose(rng: np.random.Generator, phrases: tuple[str, ...]) -> str:
    if rng.random() < CANONICAL_CHANCE:
        return phrases[0]
    return phrases[int(rng.integers(len(phrases)))]


def _word(rng: np.random.Generator, name: str, table: dict[str, str]) -> str:
    return _choose(rng, (name, *table[name].split()))


def _article(words: str) -> str:
    return ("an " if words[0] in "aeio" else "a ") + words

"""Every word that the model may know, mapped to the canonical token it means."""

from __future__ import annotations

import re

_SYNONYMS: dict[str, str] = {  # canonical token: the words that mean it, besides itself
    # colours
    "red": "crimson scarlet ruby cherry reddish cardinal vermilion maroon tomato strawberry",
    "orange": "tangerine amber apricot pumpkin carrot rust copper mango",
    "yellow": "golden gold lemon canary mustard banana yellowish",
    "green": "emerald lime jade mint olive greenish leafy",
    "blue": "azure sapphire cobalt navy indigo bluish ultramarine royal",
    "purple": "violet lilac lavender plum amethyst mauve grape purplish",
    "cyan": "turquoise teal aqua aquamarine",
    "pink": "magenta rose rosy fuchsia hot-pink salmon",
    # shapes
    "ball": "sphere orb balls spheres globe marble bubble circle disc disk balloon round",
    "box": "cube square block crate boxes cubes blocks squares brick dice rectangle",
    "triangle": "pyramid triangles triangular wedge cone tent",
    "star": "pentagram starfish five-pointed asterisk",
    "heart": "hearts valentine",
    "diamond": "rhombus gem jewel kite lozenge",
    "ring": "donut doughnut hoop torus wheel tyre tire",
    "cross": "plus",
    "moon": "crescent",
    "flower": "blossom daisy bloom petals",
    "object": "thing shape something item toy figure",
    # sizes
    "big": "large huge giant great enormous massive",
    "medium": "middle-sized average mid-sized",
    "small": "little tiny miniature mini wee",
    # motions
    "bouncing": "bounces bounce bouncy jumping jumps jump hopping hops hop leaping leaps leap "
    "springing springs dribbling skipping bobbing",
    "swinging": "swings swing swaying sways sway sliding slides slide rocking rocks pendulum "
    "sideways gliding glides travelling travels",
    "circling": "circles orbiting orbits orbit looping loops loop revolving revolves circular "
    "orbital wheeling",
    "hovering": "hovers hover floating floats float still motionless resting rests waiting waits "
    "levitating levitates standing stands stationary unmoving",
    "spinning": "spins spin rotating rotates turning turns twirling twirls whirling",
    "pulsing": "pulses pulse pulsating growing grows shrinking shrinks breathing beating beats",
    "zigzagging": "zigzags zigzag wavy weaving weaves waving meandering",
    # backgrounds
    "field": "meadow meadows grass grassland grasslands grassy hills hill hilly pasture lawn "
    "prairie fields countryside farmland valley park garden",
    "ocean": "sea seas seaside oceans waves wave water waters lake lagoon sailing sailboat "
    "beach bay",
    "desert": "dunes dune sand sands sandy cactus cacti sahara deserts",
    "city": "town skyline skyscrapers skyscraper buildings building downtown street streets urban "
    "road houses cityscape metropolis rooftops cities towers",
    "snow": "winter snowy mountains mountain glacier glaciers alps alpine peaks snowfield arctic "
    "wintry slopes snow-covered",
    "forest": "woods woodland trees pines jungle forests pine wood",
    "space": "galaxy cosmos planets planet outer universe cosmic nebula",
    "underwater": "undersea seabed reef coral submarine aquarium seaweed",
    # times
    "day": "daytime daylight noon midday morning afternoon sunny sunshine bright sunlit sun "
    "sunlight daily clear",
    "night": "midnight dark darkness nighttime nightfall moonlit moonlight starry stars starlight "
    "nocturnal starlit nights",
    "sunset": "dusk evening twilight sundown sunsets gloaming setting sunrise dawn",
    # weather
    "rain": "rainy raining rainfall shower showers drizzle storm stormy rainstorm",
    "snowfall": "snowing flakes snowflakes blizzard snowstorm",
    "fog": "foggy mist misty haze hazy",
    # camera
    "camera": "view viewpoint shot",
    "panning": "pans pan panned scrolling scrolls drifting drifts",
    # styles
    "sketch": "pencil drawing drawn sketched sketchy charcoal graphite doodle line-drawing",
    "neon": "glowing cyberpunk glow neon-lit electric synthwave luminous fluorescent",
    "sepia": "vintage old antique retro nostalgic film old-time brown faded historic",
    "comic": "cartoon cartoonish comics manga anime pop-art posterised posterized animated graphic",
    "ice": "icy frozen frost frosty freezing crystal frosted cold",
    "plain": "natural ordinary unchanged normal original real realistic",
}
_FUNCTION_WORDS = (
    "a an the and of in on over above at under by with as through during while beside near before "
    "after into across along is are it make turn style up down left right back forth side to from "
    "moving colours lights picture book photo page tone tones scene sky paper world line "
    "everything around"
)
_RESPELLED = {"moves": "moving", "move": "moving", "goes": "moving", "going": "moving",
              "beneath": "under", "below": "under", "beside": "near", "color": "colours",
              "colors": "colours", "styled": "style", "art": "picture", "painting": "picture",
              "image": "picture", "video": "picture", "movie": "film", "onto": "on",
              "inside": "in", "within": "in", "upwards": "up", "downwards": "down",
              "leftwards": "left", "rightwards": "right", "leftward": "left",
              "rightward": "right", "front": "before", "upon": "on"}  # fmt: skip


def _build() -> dict[str, str]:
    vocabulary = {word: word for word in _FUNCTION_WORDS.split()}
    for token, words in _SYNONYMS.items():
        vocabulary[token] = token
        for word in words.split():
            vocabulary[word] = token
    for word, meaning in _RESPELLED.items():
        vocabulary[word] = vocabulary.get(meaning, meaning)
    return vocabulary


VOCABULARY: dict[str, str] = _build()
TOKENS: tuple[str, ...] = tuple(sorted(set(VOCABULARY.values())))  # all canonical tokens


def split_words(text: str) -> list[str]:
    """Lower-case words; hyphenated compounds of the vocabulary stay whole, others come apart."""
    words = []
    for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()):
        words += [word] if word in VOCABULARY else word.split("-")
    return words


def tokenize(text: str) -> list[str]:
    """The canonical tokens of a sentence in order; unknown words are left out."""
    return [VOCABULARY[word] for word in split_words(text) if word in VOCABULARY]

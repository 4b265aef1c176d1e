"""The procedural, captioned video world on which the tiny model is trained; numpy and OpenCV only.

Everything a caption says can be measured on the pictures (`scorer`).  Import from the modules:
`scene` (what), `render` (pictures), `captions` (words), `styles` (whole-picture styles),
`photos` (real pictures), `scorer` (computer vision on results).
"""

from tiny_world.captions import VOCABULARY, canonical_prompt, caption
from tiny_world.render import render
from tiny_world.scene import FULL, SMALL, Scene, World, sample_scene
from tiny_world.styles import STYLES, apply_style, style_caption

__all__ = [
    "FULL",
    "SMALL",
    "STYLES",
    "VOCABULARY",
    "Scene",
    "World",
    "apply_style",
    "canonical_prompt",
    "caption",
    "render",
    "sample_scene",
    "style_caption",
]

"""The page of `streamgen webcam`: Gradio's frame and settings around our own live view."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from gradio.themes import Base, Soft
from gradio.themes.utils.fonts import Font

from streamgen.serving.live_facts import PresetFacts

PAGE = Path(__file__).parent / "page"
ASSETS = "/streamgen/page"
HEAD = f"""
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<link rel="stylesheet" href="{ASSETS}/stage.css">
"""
MOUNT = f"import('{ASSETS}/main.js').then((page) => page.mount(element, () => trigger('change')));"
HELP = """
- **Prompt**: press Enter or *Apply*; it counts from the next chunk on, nothing restarts.
- **Strength** says how far the picture may leave the camera's; **steps** trade quality for speed.
- **Seed**: the same seed and prompt draw the same film from words.
- **Text only** needs no camera. **Video file** stays in the browser; only its pictures are sent.
- From another device: start with `--host 0.0.0.0 --https` and open the address that is printed;
  without HTTPS browsers give no camera.
"""


def add_page(app: FastAPI, presets: Sequence[PresetFacts]) -> FastAPI:
    """Mount the page at `/` and its files beside it; returns the application."""
    app.mount(ASSETS, StaticFiles(directory=PAGE), name="page")
    return gr.mount_gradio_app(
        app, page_of(presets), path="/", theme=_theme(), head=HEAD, footer_links=[]
    )


def _theme() -> Base:
    system = ("ui-sans-serif", "system-ui", "sans-serif")  # nothing is fetched from elsewhere
    return Soft(
        primary_hue="indigo",
        neutral_hue="slate",
        font=[Font(name) for name in system],
        font_mono=[Font("ui-monospace"), Font("monospace")],
    ).set(
        block_title_background_fill="none",
        block_title_text_color="*body_text_color",
        block_title_padding="0",
    )


def page_of(presets: Sequence[PresetFacts]) -> gr.Blocks:
    """The page itself, for what these presets can do."""
    slowest = _first(facts.transition_chunks for facts in presets)
    most_steps = max(facts.steps for facts in presets)  # a slider needs two ends, so hidden at 1
    with gr.Blocks(title="StreamGen", analytics_enabled=False) as blocks:
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                stage = gr.HTML(
                    html_template=(PAGE / "stage.html").read_text(encoding="utf-8"),
                    js_on_load=MOUNT,
                    elem_id="sg-stage",
                )
            with gr.Column(scale=2, min_width=260, elem_id="sg-settings"):
                strength = gr.Slider(
                    0, 1, value=_first(facts.strength for facts in presets if facts.takes_video),
                    step=0.05, label="Strength",
                    info="How far the picture may leave its input",
                )  # fmt: skip
                steps = gr.Slider(
                    1, max(2, most_steps), value=most_steps, step=1, label="Steps",
                    info="Fewer are faster", visible=most_steps > 1,
                )  # fmt: skip
                transition = gr.Slider(
                    0, max(16, slowest), value=slowest, step=1, label="Transition",
                    info="Chunks in which a new prompt takes over",
                )  # fmt: skip
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, info="Begins anew")
                dice = gr.Button("Another seed", size="sm")
                with gr.Accordion("What the models draw", open=False):
                    gr.Markdown(_knowledge(presets))
                with gr.Accordion("Help", open=False):
                    gr.Markdown(HELP)
        for name, slider in {"strength": strength, "steps": steps}.items():
            slider.input(None, [slider], None, js=_tell(name))  # moved by a visitor, not by a model
        for name, part in {"seed": seed, "transition": transition}.items():
            part.change(None, [part], None, js=_tell(name))
        stage.change(None, [strength, steps], [strength, steps], js=_follow(presets))
        dice.click(None, None, [seed], js="() => Math.floor(Math.random() * 1e6)")
    return blocks


def _first(defaults: Iterable[float]) -> float:
    return next(iter(defaults), 0)


def _tell(name: str) -> str:
    """What hands a setting to the live view."""
    return f"(value) => {{ window.streamgen?.set('{name}', value); }}"


def _follow(presets: Sequence[PresetFacts]) -> str:
    """What moves the sliders that nobody has touched to where the chosen preset has them."""
    defaults = {
        facts.name: {
            "strength": facts.strength if facts.takes_video else None,
            "steps": facts.steps,
        }
        for facts in presets
    }
    return f"""(...values) => {{
      const page = window.streamgen, defaults = {json.dumps(defaults)}[page.presetName];
      return ["strength", "steps"].map((name, index) => (
        page.isTouched(name) ? values[index] : defaults?.[name] ?? values[index]));
    }}"""


def _knowledge(presets: Sequence[PresetFacts]) -> str:
    return "\n\n".join(
        f"**{facts.name}** ({facts.size}): {facts.description}. It {facts.knowledge}"
        for facts in presets
    )

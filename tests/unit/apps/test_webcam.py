"""`streamgen webcam`, without a browser: what it refuses, and the page for every kind of offer."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from streamgen_apps.cli import main


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command says and its exit code, as "2 streamgen: ..."."""
    code = main(["webcam", *arguments])
    *_, line = capsys.readouterr().err.splitlines()
    return f"{code} {line}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "70000"), "2 streamgen: --port 70000 is not in 0 to 65535"),
        (("--token", " "), "2 streamgen: --token is empty"),
        (("--max-sessions", "0"), "2 streamgen: --max-sessions 0 lets nobody in"),
        (("--split", "steps"), "2 streamgen: --split is for the work of several GPUs; give --gpus"),
        (("--gpus", "0"), "2 streamgen: 0 GPUs are not in 2 to 64; leave it out for one"),
        (("--key", "k.pem"), "2 streamgen: --certificate and --key belong together"),
        (("--certificate", "no.pem", "--key", "no.pem"), "2 streamgen: no.pem and no.pem are no"),
        (("--preset", "tiny-gpu"), "2 streamgen: no preset 'tiny-gpu'"),
        (("--host", "999.1.1.1"), "3 streamgen: cannot listen on 999.1.1.1"),
        (("--prest", "tiny-cpu"), "2 streamgen: unrecognized arguments"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
):
    free = () if "--port" in arguments else ("--port", "0")
    assert complaint(capsys, *free, *arguments).startswith(words)


def test_a_port_that_is_taken_is_told_before_models_are_loaded(
    capsys: pytest.CaptureFixture[str],
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --port" in complaint(capsys, "--port", port)


PAGE = """
from streamgen.serving.live_facts import PresetFacts
from streamgen.types import PictureSize
from streamgen_apps.webcam_page import page_of
for steps in (1, 4):
    facts = PresetFacts(
        name="some", description="a model", knowledge="draws.", takes_video=True,
        size=PictureSize(64, 64), fps=16, steps=steps, sessions=1, seed=0,
        strength=steps / 4, transition_chunks=2 * steps,
    )
    parts = page_of([facts]).blocks.values()
    sliders = [part for part in parts if type(part).__name__ == "Slider"]
    print({part.label: part.visible for part in sliders})
    print({part.label: part.value for part in sliders})
"""


def test_every_offer_has_a_page():
    """A model of one step has no choice of steps; sliders stand where the preset does.

    (In a process of its own: gradio leaves open what it opens.)"""
    pytest.importorskip("gradio", reason="the page needs streamgen[webcam]")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shown = subprocess.run(
        [sys.executable, "-c", PAGE], capture_output=True, text=True, check=True, env=environment
    )
    assert shown.stdout.splitlines() == [
        "{'Strength': True, 'Steps': False, 'Transition': True}",
        "{'Strength': 0.25, 'Steps': 1, 'Transition': 2}",
        "{'Strength': True, 'Steps': True, 'Transition': True}",
        "{'Strength': 1.0, 'Steps': 4, 'Transition': 8}",
    ]


def test_a_certificate_of_ones_own_serves_https_and_leaves_nothing_behind():
    certificate = pytest.importorskip(
        "streamgen.serving.gateway.certificate", reason="needs streamgen[webcam]"
    )
    with certificate.self_signed("192.168.1.7") as (public, key):
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(public, key)
        assert key.stat().st_mode & 0o077 == 0
        folder: Path = key.parent
    assert not folder.exists()

"""The page of `streamgen webcam` in Chromium, with a camera that plays a film."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from system_programs import CHROMIUM, find

pytest.importorskip("playwright", reason="the page is driven by playwright")
pytest.importorskip("gradio", reason="the page needs streamgen[webcam]")

from playwright.sync_api import Browser, Page, expect

from bench_webcam import SAMPLE
from fake_camera import BAND, NUM_BITS, NUM_BLOCKS, write_film
from headless import another_chromium, headless_chromium
from streamgen.types import PictureSize

PROGRAM = find(CHROMIUM)
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium; sudo apt-get install --no-install-recommends chromium"
)

VIDEO, TEXT, SAME = "tiny-cpu-v2v", "tiny-cpu", "identity-cpu"
PRESETS = Path(__file__).parents[2] / "configs"
TOKEN = "a-secret"
WAIT_MS = 90_000  # a machine may be busy; nothing here is a measurement of speed
FREED_S = 2.0
LOOK_EVERY_S = 0.05
DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}

# mean red less mean blue of the generated picture
WARMTH = """() => {
  const canvas = document.querySelector('[data-part="output"]');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let warmth = 0;
  for (let i = 0; i < data.length; i += 4) warmth += data[i] - data[i + 2];
  return warmth / (data.length / 4);
}"""
# what the page says from now on, in `said`
HEAR = """() => {
  window.said = [];
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    if (typeof data === "string") window.said.push(JSON.parse(data));
    send.call(this, data);
  };
}"""
IS_LIVE = "() => streamgen.state === 'live' && streamgen.latest !== null"


@dataclass(frozen=True, slots=True)
class Server:
    """`streamgen webcam` in a process of its own."""

    url: str
    gentle: str
    """A preset of another strength and of fewer steps than VIDEO."""

    def num_visitors(self) -> int:
        """Visitors who hold a place, and so a session."""
        request = urllib.request.Request(
            f"{self.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=WAIT_MS / 1000) as answer:
            lines = answer.read().decode().splitlines()
        (line,) = (line for line in lines if line.startswith("streamgen_places_taken "))
        return int(line.split()[1])

    def is_freed(self) -> bool:
        """Whether in time every place is free."""
        waited = threading.Event()
        for _ in range(int(FREED_S / LOOK_EVERY_S)):
            if self.num_visitors() == 0:
                return True
            waited.wait(LOOK_EVERY_S)
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    gentle = tmp_path_factory.mktemp("presets") / "gentle.toml"
    settings = (PRESETS / f"{VIDEO}.toml").read_text(encoding="utf-8")
    settings = settings.replace("[1000, 750, 500, 250]", "[1000, 500]")
    settings = settings.replace("condition_noise = 0.0", "condition_noise = 0.2")
    gentle.write_text(settings, encoding="utf-8")
    presets = [word for name in (VIDEO, TEXT, SAME, str(gentle)) for word in ("--preset", name)]
    command = [sys.executable, "-m", "streamgen_apps.cli", "webcam", "--port", "0", *presets]
    options = ["--max-sessions", "2", "--token", TOKEN, "--set", "model.num_threads=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        told = process.stdout.readline().decode()
        address = told.removeprefix("streamgen: open ").strip()
        assert address.endswith(f"/?token={TOKEN}"), told
        yield Server(address.removesuffix(f"/?token={TOKEN}"), gentle=str(gentle))
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    film = tmp_path_factory.mktemp("film") / "camera.y4m"
    write_film(film, PictureSize(240, 320), 60, has_numbers=False)
    with headless_chromium(PROGRAM, film) as running:
        yield running


@contextmanager
def visit(
    browser: Browser, server: Server, *, size: dict[str, int] = DESKTOP, script: str = ""
) -> Generator[Page]:
    """A page in a browser profile of its own; a script error fails the test."""
    context = browser.new_context(viewport=size, permissions=["camera"])  # pyright: ignore
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(script)
    try:
        page.goto(f"{server.url}/?token={TOKEN}")
        page.wait_for_function("() => window.streamgen?.state === 'idle'")
        yield page
    finally:
        context.close()
    assert errors == []


def start(page: Page, *, prompt: str = "sepia film", preset: str = VIDEO) -> None:
    page.get_by_label("Model").select_option(preset)
    say(page, prompt)
    page.get_by_role("button", name="Start camera").click()
    page.wait_for_function(IS_LIVE)


def say(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Prompt").press("Enter")


def becomes(page: Page, condition: str) -> None:
    """Wait until the warmth of the generated picture, w, is so."""
    page.wait_for_function(f"() => {{ const w = ({WARMTH})(); return {condition}; }}")


def test_the_camera_is_restyled_after_a_click_and_follows_a_prompt_typed_while_it_runs(
    server: Server, browser: Browser
):
    """The film is grey: sepia makes it warm, ice makes it cold."""
    with visit(browser, server) as page:
        start(page, prompt="sepia film")
        becomes(page, "w > 15")
        say(page, "ice")
        becomes(page, "w < -5")
        assert page.evaluate("streamgen.state") == "live"
        assert page.evaluate("streamgen.granted.prompt") == "ice"
        page.get_by_role("button", name="sepia film").click()
        becomes(page, "w > 15")
        page.wait_for_function(
            "() => parseFloat(document.querySelector('[data-figure=fps]').textContent) > 0"
        )
        assert page.locator("[data-figure=latency]").inner_text().endswith("ms")
        assert page.locator("[data-figure=quality]").inner_text() == "full"
    assert server.is_freed()


def test_two_pages_at_once_do_not_mix(server: Server, browser: Browser):
    with visit(browser, server) as warm, visit(browser, server) as cold:
        start(warm, prompt="sepia film")
        start(cold, prompt="ice")
        for _ in range(3):
            becomes(warm, "w > 15")
            becomes(cold, "w < -5")
        assert warm.evaluate(WARMTH) > 15
        assert cold.evaluate(WARMTH) < -5
    assert server.is_freed()


@pytest.mark.parametrize("transport", ["socket", "rtc"])
def test_closing_the_tab_frees_the_session(server: Server, browser: Browser, transport: str):
    with visit(browser, server) as page:
        page.get_by_label("Transport").select_option(transport)
        page.wait_for_function(f"() => streamgen.transportKind === '{transport}'")
        page.wait_for_function("() => streamgen.state === 'idle'")
        start(page, preset=SAME)
        assert server.num_visitors() == 1
        page.close()
        assert server.is_freed()


@pytest.mark.slow
def test_who_finds_no_place_waits_in_line_and_then_comes_in(server: Server, browser: Browser):
    with visit(browser, server) as one, visit(browser, server) as two:
        start(one)
        start(two)
        with visit(browser, server) as three:
            three.get_by_role("button", name="Start camera").click()
            three.get_by_text("You are number 1 in line").wait_for()
            one.get_by_role("button", name="Stop").click()
            three.wait_for_function(IS_LIVE)
    assert server.is_freed()


def test_a_time_code_goes_through_in_order_and_its_age_can_be_read(
    server: Server, browser: Browser, tmp_path: Path
):
    """What bench_webcam.py measures with. How fast pictures come is a matter of the machine."""
    assert PROGRAM is not None
    film, num_frames, seconds = tmp_path / "numbers.y4m", 120, 3
    write_film(film, PictureSize(360, 480), num_frames, has_numbers=True)
    with (
        another_chromium(browser.browser_type, PROGRAM, film) as numbered,
        visit(numbered, server) as page,
    ):
        page.get_by_role("button", name="Mirror").click()
        start(page, preset=SAME)
        seen = page.evaluate(SAMPLE, [seconds, NUM_BLOCKS, NUM_BITS, BAND])
    assert seen["shown"] > 1
    looks = [(first, last) for first, last in seen["pairs"] if None not in (first, last)]
    assert len(looks) > 0.9 * len(seen["pairs"])
    assert {number for look in looks for number in look} <= set(range(num_frames))
    assert len({last for _, last in looks}) > 1
    assert seen["captured"] == sorted(seen["captured"])
    assert server.is_freed()


def test_words_alone_need_no_camera(server: Server, browser: Browser):
    no_camera = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    with visit(browser, server, script=no_camera) as page:
        page.get_by_role("radio", name="Text only").click()
        say(page, "a red ball over the desert")
        page.get_by_role("button", name="Start").click()
        page.wait_for_function(IS_LIVE)
        assert page.evaluate("streamgen.granted.takes_video") is False
        page.get_by_role("radio", name="Camera").click()
        page.get_by_role("button", name="Start camera").click()
        page.get_by_text("Browsers give a camera only to pages over HTTPS").wait_for()
    assert server.is_freed()


def test_what_goes_wrong_is_said_on_the_page(server: Server, browser: Browser):
    with visit(browser, server) as page:
        say(page, "xyzzy")
        page.get_by_role("button", name="Start camera").click()
        page.get_by_text("the model knows no word of the prompt 'xyzzy'").wait_for()
        start(page, prompt="sepia zeppelin")
        page.get_by_text("The model does not know: zeppelin").wait_for()
        say(page, " ")
        page.get_by_text("the prompt is empty").wait_for()
        assert page.evaluate("streamgen.state") == "live"
    refused = (
        "navigator.mediaDevices.getUserMedia ="
        " async () => { throw new DOMException('', 'NotAllowedError'); };"
    )
    with visit(browser, server, script=refused) as page:
        page.get_by_role("button", name="Start camera").click()
        page.get_by_text("The browser was not allowed to use it").wait_for()
    assert server.is_freed()


def test_settings_are_granted_while_it_runs_and_pictures_can_be_taken_away(
    server: Server, browser: Browser, tmp_path: Path
):
    with visit(browser, server) as page:
        start(page)
        page.get_by_label("number input for Strength").fill("0.6")
        page.wait_for_function("() => streamgen.granted?.strength === 0.6")
        page.get_by_label("number input for Steps").fill("2")
        page.wait_for_function("() => streamgen.granted?.steps === 2")
        page.get_by_role("button", name="Another seed").click()
        page.wait_for_function("() => streamgen.granted?.seed > 0")
        page.evaluate(HEAR)
        page.get_by_label("number input for Transition").fill("3")
        page.get_by_label("number input for Transition").press("Tab")
        say(page, "neon")
        page.wait_for_function("() => streamgen.granted?.prompt === 'neon'")
        assert {"type": "change", "prompt": "neon", "over_chunks": 3} in page.evaluate("said")
        say(page, "sepia film")
        with page.expect_download() as picture:
            page.get_by_role("button", name="Snapshot").click()
        assert picture.value.suggested_filename == "sepia-film.png"
        picture.value.save_as(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        page.get_by_role("button", name="Record").click()
        page.evaluate("() => { window.before = streamgen.latest; }")
        page.wait_for_function("() => streamgen.latest.shownMs > window.before.shownMs + 500")
        with page.expect_download() as film:
            page.get_by_role("button", name="Record").click()
        assert film.value.suggested_filename.startswith("sepia-film.")
        page.get_by_role("button", name="Pause").click()
        page.wait_for_function("() => streamgen.state === 'paused'")
        page.get_by_role("button", name="Go on").click()
        page.wait_for_function(IS_LIVE)
    assert server.is_freed()


def test_sliders_stand_where_the_chosen_model_has_them_until_they_are_touched(
    server: Server, browser: Browser
):
    with visit(browser, server) as page:
        strength = page.get_by_label("number input for Strength")
        steps = page.get_by_label("number input for Steps")
        model = page.get_by_label("Model")
        expect(steps).to_have_value("4")
        model.select_option(server.gentle)
        expect(steps).to_have_value("2")
        expect(strength).not_to_have_value("0")
        model.select_option(VIDEO)
        expect(steps).to_have_value("4")
        expect(strength).to_have_value("0")
        strength.fill("0.6")
        page.wait_for_function("() => streamgen.isTouched('strength')")
        model.select_option(server.gentle)
        expect(steps).to_have_value("2")
        expect(strength).to_have_value("0.6")
        page.evaluate(HEAR)
        start(page, preset=server.gentle)
        (begun,) = (one for one in page.evaluate("said") if one["type"] == "start")
        assert (begun["strength"], begun["steps"]) == (0.6, None)
    assert server.is_freed()


@pytest.mark.parametrize(
    "size", [PHONE, {"width": 320, "height": 640}, {"width": 768, "height": 1024}]
)
def test_a_small_screen_needs_no_scrolling_sideways(
    server: Server, browser: Browser, size: dict[str, int]
):
    with visit(browser, server, size=size) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        small: list[Any] = page.evaluate(
            "[...document.querySelectorAll('.sg-bar button')].filter((b) => !b.hidden)"
            ".map((b) => b.getBoundingClientRect())"
            ".filter((r) => r.right > innerWidth || r.height < 38)"
        )
        assert small == []


def test_nothing_is_fetched_from_anywhere_else(server: Server, browser: Browser):
    with visit(browser, server) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        page.wait_for_function("() => window.streamgen?.state === 'idle'")
        elsewhere = [u for u in asked if not u.startswith((server.url, "blob:", "data:"))]
    assert len(asked) > 5
    assert elsewhere == []


def test_the_token_opens_the_page_and_leaves_its_address(server: Server, browser: Browser):
    with visit(browser, server) as page:
        assert page.url == f"{server.url}/"
    context = browser.new_context()
    answer = context.new_page().goto(server.url)
    assert answer is not None
    assert answer.status == 403
    context.close()

"""Measures the page of `streamgen webcam` in Chromium: frames a second, and how old a picture is.

The camera plays a film with a number in each picture (fake_camera.py). At one moment the number is
read from the camera's view and from the generated one: the difference is the age of what is seen,
from glass to glass but for the camera's and the screen's own time.

    python scripts/bench_webcam.py                       # writes benchmarks/webcam-page.json
    python scripts/bench_webcam.py --screenshots docs    # pictures of the page instead
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page

from fake_camera import BAND, FPS, NUM_BITS, NUM_BLOCKS, write_film
from headless import headless_chromium
from streamgen.types import PictureSize
from system_programs import CHROMIUM, find

ROOT = Path(__file__).resolve().parents[1]
FILM_FRAMES = 120
WARM_UP_MS = 4000
TIMEOUT_MS = 120_000
VGA = ("picture.height=480", "picture.width=640")
TWO_STEPS = ("denoise.timesteps=[1000, 500]",)
CASES = (
    ("identity-cpu", VGA, "socket", PictureSize(480, 640), "any"),
    ("identity-cpu", VGA, "rtc", PictureSize(480, 640), "any"),
    ("tiny-cpu-v2v", (), "socket", PictureSize(256, 256), "sepia film"),
    ("tiny-cpu-v2v", (), "rtc", PictureSize(256, 256), "sepia film"),
    ("tiny-cpu-v2v", TWO_STEPS, "socket", PictureSize(256, 256), "sepia film"),
)
SERVED = ("model.num_threads=1",)  # the browser needs the other core
WORDS = "a yellow star swinging over the ocean at sunset"
SIZES = {
    "desktop": {"width": 1360, "height": 900},
    "phone": {"width": 390, "height": 844},
}

# Reads both numbers whenever the screen is drawn, and counts the pictures that were shown.
SAMPLE = """async ([seconds, blocks, bits, band]) => {
  const canvas = document.createElement("canvas");
  canvas.width = 256; canvas.height = 256;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const read = (element) => {
    context.drawImage(element, 0, 0, 256, 256);
    const row = context.getImageData(0, 128 / band, 256, 1).data;
    let number = 0, ones = 0;
    for (let i = 0; i < blocks; i++) {
      const at = 4 * Math.floor((i + 0.5) * 256 / blocks);
      if (row[at] + row[at + 1] + row[at + 2] > 382) { ones += 1; if (i < bits) number |= 1 << i; }
    }
    return ones % 2 ? null : number;
  };
  const input = document.querySelector('[data-part="input"]');
  const output = document.querySelector('[data-part="output"]');
  const pairs = [], captured = [], shown = new Set(), began = performance.now();
  while (performance.now() < began + 1000 * seconds) {
    await new Promise(requestAnimationFrame);
    shown.add(streamgen.latest.shownMs);
    captured.push(streamgen.latest.stampMs);
    pairs.push([read(input), read(output)]);
  }
  return { pairs, captured, shown: shown.size, seconds: (performance.now() - began) / 1000 };
}"""


@dataclass(frozen=True, slots=True)
class Measurement:
    preset: str
    overrides: tuple[str, ...]
    transport: str
    picture: str
    load_average: float  # of the machine, when it ended
    frames_per_s: float
    age_ms_mean: float
    age_ms_p50: float
    age_ms_p95: float
    readable: float  # share of looks at which both numbers could be read
    shown_on_the_page: dict[str, str]


@contextmanager
def serving(presets: list[str], overrides: tuple[str, ...] = ()) -> Generator[str]:
    """The address of `streamgen webcam` in a process of its own."""
    words = [word for preset in presets for word in ("--preset", preset)]
    words += [word for setting in (*overrides, *SERVED) for word in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgen_apps.cli", "webcam", "--port", "0", *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "apps")])},
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("streamgen: open ").strip()
    finally:
        process.terminate()
        process.wait()


@contextmanager
def visiting(browser: Browser, address: str, size: dict[str, int]) -> Generator[Page]:
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]}, permissions=["camera"]
    )
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(address)
    page.wait_for_function("() => window.streamgen?.state === 'idle'")
    yield page
    context.close()


def start(page: Page, preset: str, transport: str, prompt: str) -> None:
    page.get_by_label("Transport").select_option(transport)
    page.wait_for_function(f"() => streamgen.transportKind === '{transport}'")
    page.wait_for_function("() => streamgen.state === 'idle'")
    page.get_by_label("Model").select_option(preset)
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Start camera").click()
    page.wait_for_function("() => streamgen.state === 'live' && streamgen.latest")
    page.wait_for_timeout(WARM_UP_MS)


def measure(page: Page, seconds: float) -> tuple[float, list[float], float]:
    """Frames a second, ages in ms, share of looks that could be read."""
    seen = page.evaluate(SAMPLE, [seconds, NUM_BLOCKS, NUM_BITS, BAND])
    ages = [
        (first - last) % FILM_FRAMES * 1000 / FPS
        for first, last in seen["pairs"]
        if first is not None and last is not None
    ]
    return seen["shown"] / seen["seconds"], sorted(ages), len(ages) / len(seen["pairs"])


def measure_all(program: str, seconds: float) -> list[Measurement]:
    results: list[Measurement] = []
    for preset, overrides, transport, size, prompt in CASES:
        with tempfile.TemporaryDirectory() as folder, serving([preset], overrides) as address:
            film = Path(folder) / "camera.y4m"
            write_film(film, size, FILM_FRAMES, has_numbers=True)
            with (
                headless_chromium(program, film) as browser,
                visiting(browser, address, SIZES["desktop"]) as page,
            ):
                page.get_by_role("button", name="Mirror").click()
                start(page, preset, transport, prompt)
                rate, ages, readable = measure(page, seconds)
                figures = page.evaluate(
                    "Object.fromEntries([...document.querySelectorAll('[data-figure]')]"
                    ".map((each) => [each.dataset.figure, each.textContent]))"
                )
                granted = page.evaluate("streamgen.granted")
        results.append(
            Measurement(
                preset=preset,
                overrides=overrides,
                transport=transport,
                picture=f"{granted['width']}x{granted['height']}",
                frames_per_s=round(rate, 1),
                load_average=round(os.getloadavg()[0], 1),
                age_ms_mean=round(statistics.fmean(ages)),
                age_ms_p50=round(statistics.median(ages)),
                age_ms_p95=round(ages[int(0.95 * (len(ages) - 1))]),
                readable=round(readable, 2),
                shown_on_the_page=figures,
            )
        )
        print(results[-1], flush=True)
    return results


def take_screenshots(program: str, folder: Path, film: Path | None) -> None:
    """The page while it runs, at both sizes."""
    with tempfile.TemporaryDirectory() as scratch, serving(["tiny-cpu-v2v", "tiny-cpu"]) as address:
        if film is None:
            film = Path(scratch) / "camera.y4m"
            write_film(film, PictureSize(480, 480), 60, has_numbers=False)
        with headless_chromium(program, film) as browser:
            for name, size in SIZES.items():
                with visiting(browser, address, size) as page:
                    page.screenshot(path=folder / f"webcam-{name}-idle.png")
                    start(page, "tiny-cpu-v2v", "socket", "sepia film")
                    page.screenshot(path=folder / f"webcam-{name}-camera.png")
                    page.get_by_role("radio", name="Text only").click()
                    page.get_by_label("Prompt").fill(WORDS)
                    page.get_by_role("button", name="Start").click()
                    page.wait_for_function("() => streamgen.state === 'live' && streamgen.latest")
                    page.wait_for_timeout(WARM_UP_MS)
                    page.screenshot(path=folder / f"webcam-{name}-words.png")


def _told_by(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> int:
    """Measure, or take pictures."""
    parser = argparse.ArgumentParser(description="Measures the page of `streamgen webcam`.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "webcam-page.json")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="pictures instead")
    parser.add_argument("--film", type=Path, help="Y4M file for the camera of the screenshots")
    options = parser.parse_args()
    program = find(CHROMIUM)
    if program is None:
        print("there is no Chromium: apt-get install --no-install-recommends chromium")
        return 1
    if options.screenshots is not None:
        take_screenshots(program, options.screenshots, options.film)
        return 0
    load = os.getloadavg()[0]
    results = measure_all(program, options.seconds)
    report = {
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, Chromium on the same ones",
        "load_average_before": round(load, 1),
        "commit": _told_by("git", "rev-parse", "--short", "HEAD"),
        "browser": _told_by(program, "--version"),
        "settings": SERVED,
        "film": f"{FILM_FRAMES} pictures at {FPS} frames/s",
        "age_resolution_ms": round(1000 / FPS, 1),
        "measurements": [asdict(result) for result in results],
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

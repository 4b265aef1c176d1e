"""Fill a folder with free pictures and film runs, so that codec and styles learn photographs.

Sources, by package name, and licences (the pictures are for training only and are not shipped):

- scikit-image (PyPI): its sample pictures; BSD-3-Clause package, pictures by their own
  terms, mostly public domain or CC0: see the docstrings of skimage.data
- mate-backgrounds (Debian), wallpapers: GPL-2+, two of them CC-BY-SA-4.0
- gnome-backgrounds (Debian), wallpapers: GPL-2+ package; its photographs CC-BY-SA-2.0
  or -3.0, one CC-BY-2.0
- plasma-workspace-wallpapers (Debian), wallpapers: GPL-2+
  (the three copyright files are copied into the folder)
- moviepy 2.2.1 (PyPI source package; MIT): carries the film Big Buck Bunny,
  (c) Blender Foundation, CC-BY 3.0

Usage: python scripts/fetch_training_pictures.py FOLDER
(needs pip, apt-get and dpkg; downloads about 230 MB)
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer

DEBIAN_PACKAGES = ("mate-backgrounds", "gnome-backgrounds", "plasma-workspace-wallpapers")
FILM_PACKAGE = "moviepy==2.2.1"
STILL_HEIGHT_PX = 320
FILM_HEIGHT_PX = 160
FILM_FPS = 16
NUM_RUNS = 56
RUN_FRAMES = 32
FILM_SKIP_S = 15  # titles at the start
FILM_CREDITS_S = 120  # at the end
MIN_CONTRAST = 12.0  # standard deviation of grey below which a picture teaches nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--downloads", type=Path, help="keep the packages here, and use those found here"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        downloads = options.downloads or Path(scratch) / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        num_stills = keep_samples(options.folder)
        num_stills += keep_wallpapers(options.folder, downloads, Path(scratch))
        num_runs = keep_film(options.folder, downloads, Path(scratch))
    print(f"{num_stills} stills and {num_runs} runs of {RUN_FRAMES} frames in {options.folder}")


def keep_samples(folder: Path) -> int:
    """The colour pictures inside the scikit-image package; returns how many."""
    root = Path(str(files("skimage"))) / "data"
    return sum(keep_still(path, folder, "skimage") for path in sorted(root.glob("*.[jp][pn]g")))


def keep_wallpapers(folder: Path, downloads: Path, scratch: Path) -> int:
    num_kept = 0
    if not all(list(downloads.glob(f"{package}_*.deb")) for package in DEBIAN_PACKAGES):
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "download", *DEBIAN_PACKAGES], check=True, cwd=downloads)
    for package in DEBIAN_PACKAGES:
        unpacked = scratch / package
        archive = next(iter(downloads.glob(f"{package}_*.deb")))
        subprocess.run(["dpkg", "-x", str(archive), str(unpacked)], check=True)
        shutil.copy(
            unpacked / "usr/share/doc" / package / "copyright", folder / f"{package}.copyright"
        )
        largest = _largest_versions(unpacked)
        num_kept += sum(keep_still(path, folder, package) for path in largest)
    return num_kept


def _largest_versions(root: Path) -> list[Path]:
    """One file of every wallpaper: the sizes of one picture lie in one folder as 1920x1080.jpg."""
    chosen: dict[str, Path] = {}
    for path in sorted(root.rglob("*"), key=lambda p: p.stat().st_size):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp") or path.is_symlink():
            continue
        is_size = path.stem.replace("x", "").isdigit()
        chosen[str(path.parent if is_size else path)] = path
    return [path for path in chosen.values() if "screenshot" not in path.stem]


def keep_still(path: Path, folder: Path, source: str) -> bool:
    """Scale a picture down and store it; False if it is too small or too flat."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None or min(picture.shape[:2]) < 128:
        return False
    if cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).std() < MIN_CONTRAST:
        return False
    scale = min(1.0, STILL_HEIGHT_PX / min(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    name = "_".join(path.parts[-4:]).rsplit(".", 1)[0].replace(" ", "-")
    cv2.imwrite(str(folder / f"{source}_{name}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return True


def keep_film(folder: Path, downloads: Path, scratch: Path) -> int:
    """Runs of consecutive frames, spread over the film: run_000/00.jpg ...; returns how many."""
    if not list(downloads.glob("moviepy-*.tar.gz")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "moviepy"]
        command += ["--no-build-isolation", FILM_PACKAGE, "-d", str(downloads)]
        subprocess.run(command, check=True)
    with tarfile.open(next(iter(downloads.glob("moviepy-*.tar.gz")))) as package:
        member = next(m for m in package.getmembers() if m.name.endswith("moviepy_10_minutes.zip"))
        stored = package.extractfile(member)
        assert stored is not None
        with zipfile.ZipFile(BytesIO(stored.read())) as inner:
            film = Path(
                inner.extract(next(n for n in inner.namelist() if n.endswith("/bbb.mp4")), scratch)
            )
    with av.open(str(film)) as container:
        assert container.duration is not None
        duration_s = container.duration / av.time_base
        starts_s = np.linspace(FILM_SKIP_S, duration_s - FILM_CREDITS_S, NUM_RUNS)
        for index, start_s in enumerate(starts_s):
            target = folder / f"run_{index:03d}"
            target.mkdir(exist_ok=True)
            for number, frame in enumerate(_run(container, float(start_s))):
                cv2.imwrite(
                    str(target / f"{number:02d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 92]
                )
    return NUM_RUNS


def _run(container: InputContainer, start_s: float) -> Iterator[np.ndarray]:
    """RUN_FRAMES frames at FILM_FPS from start_s: uint8 BGR, FILM_HEIGHT_PX high."""
    stream = container.streams.video[0]
    container.seek(int(start_s * av.time_base))
    due_s, num_frames = Fraction(start_s), 0
    for frame in container.decode(stream):
        if frame.time is None or frame.time < due_s:
            continue
        width = round(frame.width * FILM_HEIGHT_PX / frame.height)
        yield cv2.resize(
            frame.to_ndarray(format="bgr24"), (width, FILM_HEIGHT_PX), interpolation=cv2.INTER_AREA
        )
        due_s += Fraction(1, FILM_FPS)
        num_frames += 1
        if num_frames == RUN_FRAMES:
            return


if __name__ == "__main__":
    main()

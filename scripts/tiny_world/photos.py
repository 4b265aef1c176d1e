"""Real pictures as clips: stills with a slowly moving window, and runs of consecutive film frames.

`fetch_training_pictures.py` fills a folder: stills as *.jpg, runs as run_000/00.jpg, 01.jpg, ...
"""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

FPS = 16
MAX_VIDEO_FRAMES = 240  # taken of a video file
VIDEO_HEIGHT_PX = 160
MAX_PAN = 0.006  # of the window, shares of its side a frame (about 0.8 px at 128 px)
MAX_ZOOM = 0.004  # change of the window's side a frame
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".webm", ".mkv")


def load_pictures(folder: str | Path) -> list[np.ndarray]:
    """All pictures of a folder: stills uint8 [H, W, 3], runs and videos uint8 [T, H, W, 3], RGB.

    Raises FileNotFoundError if there are none.
    """
    pictures = []
    for path in sorted(Path(folder).iterdir()):
        if path.is_dir():
            frames = [
                _read(file) for file in sorted(path.iterdir()) if file.suffix in PICTURE_SUFFIXES
            ]
            if frames:
                pictures.append(np.stack(frames))
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            pictures.append(_read(path))
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            pictures.append(_read_video(path))
    if not pictures:
        raise FileNotFoundError(f"no pictures in {folder}; run scripts/fetch_training_pictures.py")
    return pictures


def photo_clip(
    rng: np.random.Generator, pictures: list[np.ndarray], num_frames: int, size_px: int = 128
) -> np.ndarray:
    """A clip uint8 [num_frames, size_px, size_px, 3] from one picture, mirrored half of the time.

    A still is seen through a window that pans and zooms slowly; a run gives consecutive frames
    through a fixed window, played there and back if it is shorter than the clip.
    """
    picture = pictures[int(rng.integers(len(pictures)))]
    is_run = picture.ndim == 4
    height, width = picture.shape[-3:-1]
    shortest = min(height, width)
    side = shortest * rng.uniform(0.8 if is_run else 0.4, 1.0)
    x = rng.uniform(side / 2, width - side / 2)
    y = rng.uniform(side / 2, height - side / 2)
    speed = np.zeros(3) if is_run else rng.uniform(-1, 1, 3) * (MAX_PAN, MAX_PAN, MAX_ZOOM)
    first = int(rng.integers(max(1, len(picture) - num_frames + 1))) if is_run else 0
    is_mirrored = rng.random() < 0.5
    clip = np.empty((num_frames, size_px, size_px, 3), np.uint8)
    for index in range(num_frames):
        seen = picture[_there_and_back(first + index, len(picture))] if is_run else picture
        now = float(np.clip(side * (1 + speed[2]) ** index, 0.3 * shortest, shortest))
        at_x = float(np.clip(x + speed[0] * side * index, now / 2, width - now / 2))
        at_y = float(np.clip(y + speed[1] * side * index, now / 2, height - now / 2))
        clip[index] = _window(seen, at_x, at_y, now, size_px)
    return np.ascontiguousarray(clip[:, :, ::-1]) if is_mirrored else clip


def _there_and_back(index: int, length: int) -> int:
    index %= max(1, 2 * length - 2)
    return index if index < length else 2 * length - 2 - index


def _window(picture: np.ndarray, x: float, y: float, side: float, size_px: int) -> np.ndarray:
    """A square part about (x, y), side px wide, scaled to size_px."""
    scale = size_px / side
    if scale < 0.75:  # a picture much larger than its window is softened first, or it would shimmer
        smaller = 1.2 * scale
        picture = cv2.resize(picture, None, fx=smaller, fy=smaller, interpolation=cv2.INTER_AREA)
        x, y, scale = x * smaller, y * smaller, scale / smaller
    middle = (size_px - 1) / 2
    matrix = np.array(
        [[scale, 0, middle - scale * (x - 0.5)], [0, scale, middle - scale * (y - 0.5)]], np.float64
    )
    return cv2.warpAffine(
        picture, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} is not a picture that OpenCV can read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _read_video(path: Path) -> np.ndarray:
    """The first frames of a video at FPS, VIDEO_HEIGHT_PX high: uint8 [T, H, W, 3]."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time * FPS < len(frames):
                continue
            width = round(frame.width * VIDEO_HEIGHT_PX / frame.height)
            full = frame.to_ndarray(format="rgb24")
            frames.append(cv2.resize(full, (width, VIDEO_HEIGHT_PX), interpolation=cv2.INTER_AREA))
            if len(frames) == MAX_VIDEO_FRAMES:
                break
    return np.stack(frames)

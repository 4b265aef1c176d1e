"""A program that receives a live stream, as a server or a player would: one line a picture.

    python tests/receiver.py URL FORMAT [option=value ...]

Prints "width height seconds" for each picture, until it is killed or the stream ends.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import av

TIMEOUT_S = 40.0


class Receiver:
    """The program, and what it has said so far."""

    def __init__(self, url: str, container: str, **options: str) -> None:
        given = [f"{key}={value}" for key, value in options.items()]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), url, container, *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.pictures: list[tuple[int, int, float]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.split()
            if line.endswith("\n"):  # the last one of a program that is killed may be torn
                self.pictures.append((int(words[0]), int(words[1]), float(words[2])))

    @property
    def times_s(self) -> list[float]:
        return [seconds for _, _, seconds in self.pictures]

    def kill(self) -> None:
        self._process.kill()
        self._thread.join()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def main(url: str, container: str, *options: str) -> None:
    chosen = dict(option.split("=", 1) for option in options)
    with av.open(url, "r", format=container, options=chosen, timeout=TIMEOUT_S) as stream:
        for frame in stream.decode(video=0):
            print(frame.width, frame.height, frame.time, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

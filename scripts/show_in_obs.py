"""OBS Studio, under a virtual screen, with two of our outputs as media sources; takes a screenshot.

    python scripts/show_in_obs.py --screenshot docs/obs.png

Left, RTMP: OBS listens, `streamgen run -o rtmp://...` connects. Right, Motion JPEG: OBS asks
`-o mjpeg://...`, whose address a browser source takes as well. Needs Debian's packages obs-studio,
obs-plugins, xvfb, libgl1-mesa-dri and imagemagick. Look at the picture: this program does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

PROMPT = "a red ball bouncing over a green field at night"
SCREEN = (1280, 800)
CANVAS = (640, 360)
START_TIMEOUT_S = 120.0
NEEDED = ("obs", "Xvfb", "import")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def media_source(name: str, **settings: object) -> dict[str, object]:
    return {
        "name": name,
        "id": "ffmpeg_source",
        "versioned_id": "ffmpeg_source",
        "uuid": str(uuid.uuid4()),
        "enabled": True,
        "settings": {
            "is_local_file": False,
            "hw_decode": False,
            "clear_on_media_end": False,
            "reconnect_delay_sec": 1,
            "restart_on_activate": False,
            "buffering_mb": 0,
            **settings,
        },
    }


def scene_item(number: int, name: str, *, left: float, width: float) -> dict[str, object]:
    return {
        "name": name,
        "id": number,
        "visible": True,
        "pos": {"x": left, "y": 0.0},
        "scale": {"x": 1.0, "y": 1.0},
        "align": 5,
        "bounds_type": 2,  # scaled to fit inside
        "bounds_align": 0,
        "bounds": {"x": width, "y": float(CANVAS[1])},
    }


def write_settings(home: Path, sources: list[dict[str, object]]) -> None:
    """A profile and a scene with the sources side by side, so that OBS asks nothing."""
    config = home / ".config" / "obs-studio"
    profile = config / "basic" / "profiles" / "Check"
    scenes = config / "basic" / "scenes"
    profile.mkdir(parents=True)
    scenes.mkdir(parents=True)
    (config / "global.ini").write_text(
        "[General]\nFirstRun=true\nLastVersion=486539266\nEnableAutoUpdates=false\n"
        "ConfirmOnExit=false\n"
        "[Basic]\nProfile=Check\nProfileDir=Check\nSceneCollection=Check\n"
        "SceneCollectionFile=Check\nConfigOnNewProfile=false\n"
        "[BasicWindow]\nPreviewEnabled=true\n"
        "[OBSWebSocket]\nFirstLoad=false\nServerEnabled=false\n"
    )
    width, height = CANVAS
    (profile / "basic.ini").write_text(
        f"[General]\nName=Check\n[Video]\nBaseCX={width}\nBaseCY={height}\nOutputCX={width}\n"
        f"OutputCY={height}\nFPSType=0\nFPSCommon=30\n"
    )
    share = width / len(sources)
    items = [
        scene_item(number + 1, str(source["name"]), left=share * number, width=share)
        for number, source in enumerate(sources)
    ]
    main = {
        "name": "Main",
        "id": "scene",
        "versioned_id": "scene",
        "settings": {"id_counter": len(items), "custom_size": False, "items": items},
    }
    collection = {
        "name": "Check",
        "current_scene": "Main",
        "current_program_scene": "Main",
        "scene_order": [{"name": "Main"}],
        "sources": [*sources, main],
        "groups": [],
        "transitions": [],
        "current_transition": "Cut",
        "transition_duration": 300,
    }
    (scenes / "Check.json").write_text(json.dumps(collection))


def is_listening(port: int) -> bool:
    """Whether somebody on this machine listens at a port, without connecting to it."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        f":{port:04X} " in line.split()[1] + " " and line.split()[3] == "0A" for line in lines
    )


def wait_for(what: str, is_there: Callable[[], bool]) -> None:
    end_s = time.perf_counter() + START_TIMEOUT_S
    while not is_there():
        if time.perf_counter() > end_s:
            raise SystemExit(f"{what} did not come within {START_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children: each was started as a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def show(folder: Path, screenshot: Path, seconds: float) -> None:
    rtmp_port, page_port = free_port(), free_port()
    rtmp = f"rtmp://127.0.0.1:{rtmp_port}/live/check"
    sources = [
        media_source("RTMP", input=rtmp, ffmpeg_options="listen=1 fflags=nobuffer"),
        media_source(
            "Motion JPEG",
            input=f"http://127.0.0.1:{page_port}/stream.mjpg",
            input_format="mpjpeg",
            ffmpeg_options="fflags=nobuffer use_wallclock_as_timestamps=1",
        ),
    ]
    write_settings(folder / "home", sources)
    (folder / "run").mkdir(mode=0o700)
    display = next(n for n in range(90, 200) if not Path(f"/tmp/.X11-unix/X{n}").exists())
    env = os.environ | {
        "HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "home" / ".config"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "DISPLAY": f":{display}",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "QT_QPA_PLATFORM": "xcb",
    }
    log = (folder / "log").open("wb")
    screen = f"{SCREEN[0]}x{SCREEN[1]}x24"

    def start(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

    with contextlib.ExitStack() as started:
        started.callback(log.close)
        started.callback(
            end, start("Xvfb", f":{display}", "-screen", "0", screen, "-nolisten", "tcp")
        )
        wait_for("the screen", Path(f"/tmp/.X11-unix/X{display}").exists)
        started.callback(
            end,
            start(
                "obs", "--multi", "--profile", "Check", "--collection", "Check", "--scene", "Main"
            ),
        )
        wait_for("OBS, listening for RTMP,", lambda: is_listening(rtmp_port))
        outputs = ("-o", rtmp, "-o", f"mjpeg://127.0.0.1:{page_port}", "--zoom", "2")
        stream = start(sys.executable, "-m", "streamgen_apps.cli", "run", PROMPT, *outputs)
        started.callback(end, stream)
        wait_for("the stream", lambda: is_listening(page_port))
        time.sleep(seconds)
        if stream.poll() is not None:
            raise SystemExit((folder / "log").read_text()[-2000:])
        screenshot.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["import", "-window", "root", str(screenshot)], env=env, check=True, timeout=60
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--screenshot", type=Path, default=Path("docs/obs.png"), metavar="FILE")
    parser.add_argument(
        "--seconds", type=float, default=15.0, metavar="S", help="before it is taken"
    )
    options = parser.parse_args()
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        print(f"show_in_obs: missing programs: {', '.join(missing)}", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as folder:
        show(Path(folder), options.screenshot, options.seconds)
    print(options.screenshot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

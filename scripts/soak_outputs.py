"""One stream into every network output at once, read back over loopback; writes a JSON record.

    python scripts/soak_outputs.py --seconds 60
    python scripts/soak_outputs.py --seconds 5 --out /tmp/outputs.json      # a trial

Runs `streamgen run` with a film and RTMP, RTSP, SRT, UDP, TCP, HLS, MJPEG and WHEP beside it. The
ffmpeg program receives each (WHEP: aiortc) and ffprobe reads what it kept: size, rate, growing
times. The TCP receiver is killed after a third of the time and comes back after two seconds. Needs
ffmpeg and ffprobe.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red ball bouncing over a green field at night"
SPARE_S = 8.0  # that the stream is longer than what is asked of its receivers
ZOOM = 2
QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error", "-y")


@dataclass(frozen=True, slots=True)
class Route:
    """One output, and how ffmpeg takes it in."""

    name: str
    output: str
    receive: tuple[str, ...]
    comes_first: bool  # whether the receiver listens, so that it must be there before


def routes(folder: Path) -> list[Route]:
    ports = iter(free_ports(8))

    def place(pattern: str) -> str:
        return pattern.format(port=next(ports))

    rtmp, rtsp = place("rtmp://127.0.0.1:{port}/live/key"), place("rtsp://127.0.0.1:{port}/live")
    srt, udp = place("srt://127.0.0.1:{port}"), place("udp://127.0.0.1:{port}")
    tcp, mjpeg = place("tcp://127.0.0.1:{port}"), place("mjpeg://127.0.0.1:{port}")
    playlist = str(folder / "hls" / "live.m3u8")
    page = mjpeg.replace("mjpeg:", "http:")
    clocked = ("-use_wallclock_as_timestamps", "1", "-f", "mpjpeg")
    return [
        Route("rtmp", rtmp, ("-listen", "1", "-i", rtmp), True),
        Route("rtsp", rtsp, ("-rtsp_flags", "listen", "-i", rtsp), True),
        Route("srt", srt, ("-i", f"{srt}?mode=listener"), True),
        Route("udp", udp, ("-i", f"{udp}?timeout=120000000"), True),
        Route("tcp", tcp, ("-i", f"{tcp}?listen=1"), True),
        Route("hls", playlist, ("-i", playlist), False),
        Route("mjpeg", mjpeg, (*clocked, "-i", f"{page}/stream.mjpg"), False),
        Route("whep", place("whep://127.0.0.1:{port}"), (), False),
    ]


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def receiver(route: Route, folder: Path, seconds: float, part: str = "") -> subprocess.Popen[bytes]:
    film = folder / f"{route.name}{part}.mkv"
    return subprocess.Popen(
        ["ffmpeg", *QUIET, *route.receive, "-t", str(seconds), "-c", "copy", str(film)],
        stderr=subprocess.DEVNULL,
    )


def soak(seconds: float, folder: Path) -> dict[str, object]:
    (folder / "hls").mkdir()
    chosen = routes(folder)
    by_name = {route.name: route for route in chosen}
    receivers = {r.name: receiver(r, folder, seconds) for r in chosen if r.comes_first}
    time.sleep(2.0)
    outputs = [word for route in chosen for word in ("-o", route.output)]
    command = [sys.executable, "-m", "streamgen_apps.cli", "run", PROMPT, "-o"]
    length = ("--seconds", str(seconds + SPARE_S), "--zoom", str(ZOOM))
    stream = subprocess.Popen(
        [*command, str(folder / "film.mp4"), *outputs, *length],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_page(by_name["mjpeg"].output.replace("mjpeg:", "http:") + "/snapshot.jpg")
    while not Path(by_name["hls"].output).exists():
        time.sleep(0.1)
    began_s = time.perf_counter()
    for name in ("mjpeg", "hls"):
        receivers[name] = receiver(by_name[name], folder, seconds)
    url = by_name["whep"].output.replace("whep:", "http:") + "/whep"
    watched = asyncio.run(watch_and_disturb(url, seconds, by_name["tcp"], receivers, folder))
    _, told = stream.communicate(timeout=8 * seconds + 120)
    for process in receivers.values():
        process.wait(timeout=60)
    found: dict[str, object] = {
        name: read_back(folder / f"{name}.mkv") for name in receivers if name != "tcp"
    }
    found["tcp, before its receiver was killed"] = read_back(folder / "tcp.mkv")
    found["tcp, after it came back"] = read_back(folder / "tcp-again.mkv")
    found["whep"] = watched
    found["film beside them"] = read_back(folder / "film.mp4")
    return {
        "seconds": seconds,
        "stream_s": round(time.perf_counter() - began_s, 1),
        "exit_code": stream.returncode,
        "told": told.replace(str(folder), "FOLDER").splitlines(),
        "received": found,
    }


def restart(name: str, seconds: float, folder: Path) -> dict[str, object]:
    """One output alone; its receiver is killed (-9) after a third of the time, and another one
    listens two seconds later."""
    route = {route.name: route for route in routes(folder)}[name]
    first = receiver(route, folder, seconds)
    time.sleep(1.0)
    command = [sys.executable, "-m", "streamgen_apps.cli", "run", PROMPT, "-o", route.output]
    stream = subprocess.Popen(
        [*command, "--seconds", str(seconds + SPARE_S), "--zoom", str(ZOOM)],
        stderr=subprocess.PIPE,
        text=True,
    )
    film = folder / f"{name}.mkv"
    while not film.exists() and stream.poll() is None:
        time.sleep(0.1)
    time.sleep(seconds / 3)
    first.kill()
    first.wait()
    time.sleep(2.0)
    again = receiver(route, folder, seconds / 3, "-again")
    _, told = stream.communicate(timeout=8 * seconds + 120)
    again.wait(timeout=60)
    return {
        "seconds": seconds,
        "exit_code": stream.returncode,
        "told": told.splitlines(),
        "before its receiver was killed": read_back(film),
        "after another one came": read_back(folder / f"{name}-again.mkv"),
    }


def wait_for_page(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing is served at {url}")


async def watch_and_disturb(
    url: str,
    seconds: float,
    tcp: Route,
    receivers: dict[str, subprocess.Popen[bytes]],
    folder: Path,
) -> dict[str, object]:
    watching = asyncio.create_task(watch(url, seconds))
    await asyncio.sleep(seconds / 3)
    receivers["tcp"].send_signal(2)  # as Ctrl-C: the film so far is kept
    receivers["tcp"].wait()
    await asyncio.sleep(2.0)
    receivers["tcp"] = receiver(tcp, folder, seconds / 3, "-again")
    return await watching


async def watch(url: str, seconds: float) -> dict[str, object]:
    """Be a viewer by WebRTC for so long."""
    import aiortc

    peer = aiortc.RTCPeerConnection()
    peer.addTransceiver("video", direction="recvonly")
    tracks: asyncio.Queue = asyncio.Queue()
    peer.on("track", tracks.put_nowait)
    await peer.setLocalDescription(await peer.createOffer())

    def post() -> str:
        headers = {"Content-Type": "application/sdp"}
        request = urllib.request.Request(url, peer.localDescription.sdp.encode(), headers)
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.read().decode()

    answer = await asyncio.to_thread(post)
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
    track = await tracks.get()
    times_s: list[float] = []
    size = ""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        frame = await track.recv()
        times_s.append(frame.time)
        size = f"{frame.width}x{frame.height}"
    await peer.close()
    return facts(size, times_s)


def read_back(film: Path) -> dict[str, object]:
    """What ffprobe finds in a film: every packet's decoding time."""
    entries = ("-show_entries", "stream=codec_name,width,height:packet=dts_time", "-of", "json")
    command = ["ffprobe", "-v", "error", "-select_streams", "v", *entries, str(film)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        return {"error": done.stderr.strip()[-200:]}
    shown = json.loads(done.stdout)
    stream = shown["streams"][0]
    times_s = [float(packet["dts_time"]) for packet in shown["packets"] if "dts_time" in packet]
    found = facts(f"{stream['width']}x{stream['height']}", times_s)
    return {"codec": stream["codec_name"], **found}


def facts(size: str, times_s: list[float]) -> dict[str, object]:
    gaps_s = [later - earlier for earlier, later in pairwise(times_s)]
    span_s = times_s[-1] - times_s[0] if gaps_s else 0.0
    return {
        "size": size,
        "frames": len(times_s),
        "span_s": round(span_s, 2),
        "frames_per_second": round(len(gaps_s) / span_s, 3) if span_s else None,
        "longest_gap_s": round(max(gaps_s, default=0.0), 3),
        "times_that_do_not_grow": sum(gap <= 0 for gap in gaps_s),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of each output")
    parser.add_argument(
        "--restart", choices=("rtmp", "rtsp", "srt", "tcp"), metavar="NAME",
        help="this output alone, its receiver killed and started again; added to the record",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "outputs.json")
    options = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        if options.restart is None:
            found = soak(options.seconds, Path(folder))
        else:
            found = restart(options.restart, options.seconds, Path(folder))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    ).stdout.strip()  # fmt: skip
    machine = {"cores": os.cpu_count(), "load_average_before": load_before}
    record = {"commit": commit, "machine": machine, **found}
    if options.restart is not None:
        whole = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        record = whole | {f"{options.restart}, its receiver restarted": record}
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

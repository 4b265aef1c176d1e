"""What this machine has of what StreamGen can use, what is missing, and the command that mends it.

Nothing is changed and no camera is switched on: packages are looked for without being imported
where that tells enough, drivers where the system lists them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from streamgen.errors import StreamGenError, install_command

PROGRAM_TIMEOUT_S = 20.0
OBS_CAMERA = "{A3FCE0F5-3493-419F-958A-ABA1250EC20B}"  # class of its camera on Windows
MAC_OBS = Path("/Applications/OBS.app")
LINUX_MODULES = Path("/sys/module")
ENCODERS = {
    "libx264": "films (.mp4 .mov .mkv), network outputs",
    "libvpx-vp9": "films (.webm)",
    "gif": "films (.gif)",
    "mjpeg": "pages that OBS takes (-o mjpeg:)",
}
MUXERS = {"flv": "-o rtmp:", "mpegts": "-o udp: tcp: srt:", "rtsp": "-o rtsp:", "hls": "-o .m3u8"}
PROTOCOLS = ("srt", "rtmp", "rtmps", "https", "tls")
PACKAGES = {  # what each is for, and the extra that brings it
    "mss": ("the screen as an input (-i screen:)", "screen"),
    "pyvirtualcam": ("-o virtualcam:", "virtualcam"),
    "aiortc": ("WebRTC: -o whip: whep:, remote cameras", "webrtc"),
    "gradio": ("the page, streamgen webcam", "webcam"),
    "diffusers": ("Wan 2.1 models", "models"),
}
ATTENTION = {"xformers": "xformers", "flash_attn": None, "sageattention": None}
"""Packages of faster attention, and the extra that brings each where one does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for."""

    area: str
    name: str
    is_there: bool
    told: str  # which one it is, or what is not possible without it
    remedy: str | None = None  # a command, where one mends it
    is_vital: bool = False  # nothing works without it


def examine() -> list[Finding]:
    """Look at everything; a check that fails is itself a finding."""
    return _found_by(
        _python, _torch, _attention, _codecs, _program, _cameras, _virtual_cameras, _screen,
        _packages,
    )  # fmt: skip


def measure() -> list[Finding]:
    """What the tiny model's work costs here, as an engine learns it before anybody comes."""
    return _found_by(_latency)


def _found_by(*checks: Callable[[], Iterator[Finding]]) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:  # a broken package must not hide what is found elsewhere
            area = check.__name__.strip("_").replace("_", " ")
            reason = " ".join(str(error).split()) or type(error).__name__
            findings.append(Finding(area, "check", False, f"failed: {reason}"))
    return findings


def _python() -> Iterator[Finding]:
    told = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    is_known = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding("python", "Python", is_known, told, None if is_known else "use Python 3.11-3.13")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        told = f"no model runs without it ({error})"
        yield Finding("devices", "torch", False, told, 'pip install "torch>=2.8"', is_vital=True)
        return
    yield Finding("devices", "torch", True, torch.__version__, is_vital=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", "cpu", True, f"cores: {cores}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            told = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
            yield Finding("devices", f"cuda:{index}", True, told)
        return
    has_card = shutil.which("nvidia-smi") is not None
    remedy = "pip install --force-reinstall torch" if has_card else None
    told = (
        "there is an NVIDIA driver, but this torch is a build without CUDA, or the driver is older "
        "than it wants"
        if has_card
        else "no NVIDIA GPU; presets for large models need one"
    )
    yield Finding("devices", "cuda", False, told, remedy)


def _attention() -> Iterator[Finding]:
    yield Finding("attention", "sdpa", True, "in torch; always there")
    for name, extra in ATTENTION.items():
        remedy = None if extra is None else install_command(extra)
        if find_spec(name) is not None:
            yield Finding("attention", name, True, _version(name))
        else:
            yield Finding("attention", name, False, "optional; sdpa does its work", remedy)
    has_triton = find_spec("triton") is not None
    told = _version("triton") if has_triton else "comes with torch builds for CUDA"
    yield Finding("attention", "triton", has_triton, told)


def _codecs() -> Iterator[Finding]:
    try:
        import av
    except (ImportError, OSError) as error:
        told = f"no films without it ({error})"
        yield Finding("codecs", "PyAV", False, told, 'pip install "av>=14.2,<20"', is_vital=True)
        return
    yield Finding("codecs", "PyAV", True, av.__version__, is_vital=True)
    from av.codec import Codec
    from av.format import ContainerFormat

    # asked for writing: lists of names do not tell which of them are for reading only
    remedy = 'pip install --force-reinstall "av>=14.2,<20"'
    for name, use in ENCODERS.items():
        is_there = _can(lambda name=name: Codec(name, "w"))
        yield Finding("codecs", name, is_there, use, None if is_there else remedy)
    for name, use in MUXERS.items():
        is_there = _can(lambda name=name: ContainerFormat(name, "w"))
        yield Finding("codecs", name, is_there, use, None if is_there else remedy)


def _can(make: Callable[[], object]) -> bool:
    """Whether PyAV knows what `make` asks for; what it does not know is a ValueError."""
    try:
        make()
    except ValueError:
        return False
    return True


def _program() -> Iterator[Finding]:
    program = shutil.which("ffmpeg")
    remedy = {
        "linux": "sudo apt install ffmpeg",
        "darwin": "brew install ffmpeg",
        "win32": "winget install ffmpeg",
    }.get(sys.platform)
    player = shutil.which("ffplay")
    told = player or "needed by -o preview:, the window"
    yield Finding("ffmpeg", "ffplay", player is not None, told, None if player else remedy)
    if program is None:
        told = "srt: inputs and outputs need it; everything else goes without"
        yield Finding("ffmpeg", "ffmpeg", False, told, remedy)
        return
    known = _protocols(program)
    yield Finding("ffmpeg", "ffmpeg", True, program)
    for name in PROTOCOLS:
        is_there = name in known
        told = "spoken" if is_there else "this build of ffmpeg does not speak it"
        yield Finding("ffmpeg", name, is_there, told, None if is_there else remedy)


def _protocols(program: str) -> set[str]:
    done = subprocess.run(
        [program, "-hide_banner", "-protocols"],
        capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return set(done.stdout.split())


def _cameras() -> Iterator[Finding]:
    from streamgen.media.sources.webcam import list_cameras

    cameras = list_cameras()
    for camera in cameras:
        path = Path(f"/dev/video{camera.index}")
        may_read = not sys.platform.startswith("linux") or os.access(path, os.R_OK)
        remedy = None if may_read else "sudo usermod -aG video $USER, then log in again"
        told = camera.name if may_read else f"{camera.name}: no permission to use {path}"
        yield Finding("cameras", f"webcam:{camera.index}", may_read, told, remedy)
    if not cameras:
        yield Finding("cameras", "camera", False, "none is plugged in; -i synthetic: needs none")


def _virtual_cameras() -> Iterator[Finding]:
    from streamgen.media.sinks.virtual_camera import REMEDIES

    if sys.platform.startswith("linux"):
        is_there = (LINUX_MODULES / "v4l2loopback").is_dir()
        told = "loaded" if is_there else "needed by -o virtualcam:"
        remedy = None if is_there else REMEDIES["linux"]
        yield Finding("virtual camera", "v4l2loopback", is_there, told, remedy)
        return
    is_there = _has_obs_camera()
    told = "installed" if is_there else "needed by -o virtualcam:"
    yield Finding(
        "virtual camera", "OBS", is_there, told, None if is_there else REMEDIES.get(sys.platform)
    )


def _has_obs_camera() -> bool:
    """Whether OBS has brought its camera to Windows or macOS."""
    if sys.platform == "win32":
        import winreg

        try:
            winreg.OpenKey(winreg.HKEY_CLASSES_ROOT, rf"CLSID\{OBS_CAMERA}").Close()
        except OSError:
            return False
        return True
    return MAC_OBS.is_dir()


def _screen() -> Iterator[Finding]:
    if not sys.platform.startswith("linux"):
        return
    display = os.environ.get("DISPLAY")
    told = display or "no X11 screen (DISPLAY is not set), so no -i screen: and no preview"
    yield Finding("screen", "X11", display is not None, told)


def _packages() -> Iterator[Finding]:
    for name, (use, extra) in PACKAGES.items():
        if find_spec(name) is not None:
            yield Finding("packages", name, True, _version(name))
        else:
            yield Finding("packages", name, False, f"needed by {use}", install_command(extra))


def _latency() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return
    from streamgen.serving.host import Host
    from streamgen.serving.service import latency_lines

    with Host("tiny-cpu-v2v", overrides=("engine.policy=slo_aware", "engine.sessions=2")) as host:
        count = host.pipeline.config.model.num_threads
        yield Finding("threads", "model.num_threads", True, f"{count}, as a trial found best")
        for line in latency_lines(host.pipeline):
            name, _, told = line.partition(": ")
            yield Finding("latency model (tiny-cpu-v2v)", name, True, told)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"


def check_vital(findings: list[Finding]) -> None:
    """Raises StreamGenError if something is missing that nothing works without."""
    for finding in findings:
        if finding.is_vital and not finding.is_there:
            raise StreamGenError(f"{finding.name} is missing; run: {finding.remedy}")

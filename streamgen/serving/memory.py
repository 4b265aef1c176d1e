"""Whether a Wan model fits: an estimate before anything is loaded, against what is free.

The parts come from sizes (streamgen.models.wan.memory). What does not fit is refused with the
numbers, and with settings that would fit, which are tried out rather than guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from streamgen.config.schema import StreamConfig
from streamgen.engine.recipe import Recipe
from streamgen.errors import CapacityError
from streamgen.models.wan.memory import (
    CUDA_BYTES,
    LatentPicture,
    dit_bytes,
    dit_params,
    dit_work_bytes,
    prompt_numbers,
    tae_decoder_state,
    tae_encoder_state,
    tae_params,
    tae_work,
    vae_decoder_state,
    vae_encoder_state,
    vae_params,
    vae_work,
)
from streamgen.ops.quantise import KVFormat
from streamgen.serving.model_files import WanParts
from streamgen.serving.prompts import NUM_READY_PROMPTS

NUM_KEPT_PROMPTS = 2  # of each session: the old one for chunks in flight, the new one
SMALLER_SHARES = (0.75, 0.5)  # of height and width that are proposed where nothing else helps
PICTURE_GRID = 16  # pixels: codec times patch
MARGIN = 1.05  # allocators lose a little between tensors

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by part: what lies on the device, and what the host holds or has held on the way."""

    device: tuple[tuple[str, int], ...]
    host_bytes: int

    @property
    def device_bytes(self) -> int:
        return int(MARGIN * sum(size for _, size in self.device))

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.device if size > 5e7)
        return f"{self.device_bytes / 1e9:.1f} GB ({parts})"


def memory_of(
    config: StreamConfig, recipe: Recipe, parts: WanParts, *, item_bytes: int, has_gpu: bool
) -> Memory:
    """What a pipeline of these settings takes, all sessions open."""
    assert config.wan is not None
    picture = LatentPicture(config.picture.height // 8, config.picture.width // 8)
    frame_tokens = picture.num_latents // (parts.dit.patch_height * parts.dit.patch_width)
    sessions = config.engine.sessions
    num_cells = recipe.sinks + recipe.ring
    num_rows = recipe.num_cache_rows * sessions
    kind = KVFormat(config.cache.dtype)
    kv_heads = 2 * parts.dit.num_blocks * num_rows * num_cells * frame_tokens * parts.dit.num_heads
    num_prompts = NUM_KEPT_PROMPTS * sessions + NUM_READY_PROMPTS + recipe.guidance.is_active
    batch_rows = recipe.rows_in_flight * recipe.max_pass_rows * sessions
    kept_numbers = recipe.chunk_frames * frame_tokens * parts.dit.dim
    work = dit_work_bytes(
        parts.dit,
        new_tokens=batch_rows * recipe.row_frames * frame_tokens,
        read_tokens=batch_rows * num_cells * frame_tokens,
        rotates_late=config.cache.positions == "window",
        reads_codes=kind is not KVFormat.FULL,
        item_bytes=item_bytes,
    )
    codec_params, codec_state, codec_work = _codec(config, parts, picture)
    is_small = config.speed.linears != "full"
    on_host = has_gpu and config.wan.text_place == "host"
    text_bytes = parts.text_layer_bytes if on_host else parts.text_bytes
    device = (
        ("weights", dit_bytes(parts.dit, item_bytes=item_bytes, has_small_linears=is_small)),
        ("LoRAs", parts.lora_bytes and parts.lora_bytes + dit_params(parts.dit) * item_bytes),
        ("KV cache", kv_heads * kind.bytes_a_head(parts.dit.head_dim, item_bytes)),
        ("kept sums", bool(config.speed.reuse_steps) * num_rows * kept_numbers * item_bytes),
        ("prompts", num_prompts * prompt_numbers(parts.dit) * item_bytes),
        ("codec", (codec_params + sessions * codec_state) * item_bytes),
        ("text encoder", text_bytes),
        ("work", max(work, (codec_work + codec_state) * item_bytes)),
        ("CUDA", CUDA_BYTES if has_gpu else 0),
    )
    small_weights = dit_params(parts.dit) * item_bytes if is_small and has_gpu else 0
    return Memory(device, (parts.text_bytes if on_host else 0) + small_weights)


def check_fits(
    config: StreamConfig,
    estimate: Callable[[StreamConfig], Memory],
    *,
    free_bytes: int | None,
    free_host_bytes: int | None,
    where: str,
) -> None:
    """Raise CapacityError, with numbers and settings that would fit, unless there is room.

    None: nobody knows how much is free, and then nothing is refused.
    """
    needed = estimate(config)
    if free_host_bytes is not None and needed.host_bytes > free_host_bytes:
        raise CapacityError(
            f"text encoder{_and_weights(config)} take {needed.host_bytes / 1e9:.1f} GB of the "
            f"host's memory, {free_host_bytes / 1e9:.1f} GB are free; close other programs, or "
            f'keep the encoder on the GPU: wan.text_place = "device"'
        )
    if free_bytes is None or needed.device_bytes <= free_bytes:
        return
    changes = fitting_changes(config, estimate, free_bytes)
    settings = [text for change in changes for text in change.texts]
    remedy = (
        "fits with " + " ".join(f"--set {text}" for text in settings)
        if changes
        else "no smaller setting of this model fits: take a smaller model or a larger device"
    )
    raise CapacityError(
        f"this needs about {needed}, {free_bytes / 1e9:.1f} GB are free on {where}; {remedy}"
    )


def fitting_changes(
    config: StreamConfig, estimate: Callable[[StreamConfig], Memory], free_bytes: int
) -> tuple[Change, ...]:
    """The mildest settings found that fit; empty if none do."""

    def fits(changes: list[Change]) -> bool:
        return estimate(changed(config, changes)).device_bytes <= free_bytes

    taken: list[Change] = []
    for options in _ladders(config):
        if fits(taken):
            break
        enough = next((one for one in options if fits([*taken, one])), None)
        taken.append(enough or options[-1])
    if not taken or not fits(taken):
        return ()
    for change in reversed(list(taken)):
        others = [other for other in taken if other is not change]
        if fits(others):
            taken = others
    return tuple(taken)


@dataclass(frozen=True, slots=True)
class Change:
    """One proposal, as a user writes it, and as a function of settings."""

    texts: tuple[str, ...]
    """As "section.key=value"."""
    apply: Callable[[StreamConfig], StreamConfig]


def changed(config: StreamConfig, changes: Sequence[Change]) -> StreamConfig:
    """The settings with proposals taken."""
    for change in changes:
        config = change.apply(config)
    return config


def _ladders(config: StreamConfig) -> Iterator[list[Change]]:
    """Proposals, those that cost least first; each entry from mild to harsh."""
    wan, chunk = config.wan, config.denoise.chunk_frames
    assert wan is not None
    if wan.text_place == "device":
        yield [Change(('wan.text_place="host"',), lambda c: _with_wan(c, text_place="host"))]
    if config.model.dtype == "float32":
        dtype = "bfloat16"
        yield [
            Change(
                (f"model.dtype={dtype}",), lambda c: replace(c, model=replace(c.model, dtype=dtype))
            )
        ]
    if config.cache.dtype == "full" and config.cache.sink_kind != "ema":
        yield [Change(("cache.dtype=int8",), _with_small_cache)]
    if config.engine.sessions > 1:
        counts = range(config.engine.sessions - 1, 0, -1)
        yield [Change((f"engine.sessions={n}",), _sessions(n)) for n in counts]
    if wan.codec == "vae" and wan.latent_norm == "standard":
        yield [Change(("wan.codec=taehv",), lambda c: _with_wan(c, codec="taehv"))]
    if config.speed.linears == "full" and not wan.loras:
        yield [Change(("speed.linears=int8",), _with_small_linears)]
    window = len(config.denoise.timesteps) if config.cache.mode == "joint" else 2
    rings = range(config.cache.ring - chunk, (window - 1) * chunk, -chunk)
    if rings:
        yield [Change((f"cache.ring={ring}",), _ring(ring)) for ring in rings]
    yield [_picture_change(config, share) for share in SMALLER_SHARES]


def _with_wan(config: StreamConfig, **changes: str) -> StreamConfig:
    assert config.wan is not None
    return replace(config, wan=replace(config.wan, **changes))


def _with_small_cache(config: StreamConfig) -> StreamConfig:
    return replace(config, cache=replace(config.cache, dtype="int8"))


def _with_small_linears(config: StreamConfig) -> StreamConfig:
    return replace(config, speed=replace(config.speed, linears="int8"))


def _sessions(count: int) -> Callable[[StreamConfig], StreamConfig]:
    return lambda config: replace(config, engine=replace(config.engine, sessions=count))


def _ring(frames: int) -> Callable[[StreamConfig], StreamConfig]:
    return lambda config: replace(config, cache=replace(config.cache, ring=frames))


def _picture_change(config: StreamConfig, share: float) -> Change:
    sizes = (config.picture.height, config.picture.width)
    height, width = (
        max(PICTURE_GRID, int(size * share) // PICTURE_GRID * PICTURE_GRID) for size in sizes
    )
    return Change(
        (f"picture.height={height}", f"picture.width={width}"),
        lambda c: replace(c, picture=replace(c.picture, height=height, width=width)),
    )


def _and_weights(config: StreamConfig) -> str:
    return "" if config.speed.linears == "full" else " and weights on their way to 8 bits"


def _codec(config: StreamConfig, parts: WanParts, picture: LatentPicture) -> tuple[int, int, int]:
    """Numbers of the codec's weights, of one session's states, and of its work."""
    assert config.wan is not None
    reads = config.task == "video-to-video"
    if config.wan.codec == "taehv":
        state = tae_decoder_state(parts.tae, picture)
        state += tae_encoder_state(parts.tae, picture) if reads else 0
        return tae_params(parts.tae), state, tae_work(parts.tae, picture)
    state = vae_decoder_state(parts.vae, picture)
    state += vae_encoder_state(parts.vae, picture) if reads else 0
    return vae_params(parts.vae), state, vae_work(parts.vae, picture)

"""Service levels of a pipeline's sessions: what settings ask for, what the engine is told."""

from __future__ import annotations

from streamgen.engine.governing import demand_of, offer_of
from streamgen.engine.recipe import Recipe
from streamgen.engine.terms import ServiceTerms
from streamgen.errors import CapacityError
from streamgen.media.frame_queue import FileFrameQueue, FrameQueue, LiveFrameQueue
from streamgen.scheduling.capacity import MARGIN, Admission, Verdict, utilisation
from streamgen.scheduling.service import (
    PipelineFacts,
    Quality,
    ServiceLevel,
    check_service,
    quality_ladder,
)
from streamgen.serving.build import Pipeline

RETRY_S = 10.0  # when to come again where only cache rows are missing


def pipeline_facts(pipeline: Pipeline, recipe: Recipe) -> PipelineFacts:
    """What service levels of sessions of a recipe are measured by."""
    return PipelineFacts(
        fps=pipeline.config.picture.fps,
        num_steps=recipe.num_steps,
        clip_frames=pipeline.geometry.num_pixel_frames(recipe, 1),
        takes_video=pipeline.config.task == "video-to-video",
    )


def preset_service(pipeline: Pipeline, *, is_live: bool) -> ServiceLevel | None:
    """The service level of the settings, for sessions that ask for none; only under "slo_aware".

    A latency concerns live inputs only: a file is played without stalls.
    """
    config = pipeline.config
    if config.engine.policy != "slo_aware":
        return None
    asked = config.service
    latency_s = asked.latency_s if is_live and asked.latency_s else None
    return ServiceLevel(
        fps=config.picture.fps,
        first_frame_s=asked.first_frame_s,
        latency_s=latency_s,
        weight=asked.weight,
        min_steps=min(asked.min_steps, len(config.denoise.timesteps)),
        min_fps=asked.min_fps,
        accepts_still=asked.accepts_still and latency_s is not None,
    )


def terms(
    pipeline: Pipeline, service: ServiceLevel | None, recipe: Recipe, queue: FrameQueue | None
) -> ServiceTerms:
    """What follows from a service level, or from that of the settings if there is none.

    Raises ConfigError if it could never be kept.
    """
    if service is None:
        service = preset_service(pipeline, is_live=isinstance(queue, LiveFrameQueue))
    if service is None:
        return ServiceTerms()
    facts = pipeline_facts(pipeline, recipe)
    check_service(service, facts)
    ladder = quality_ladder(service, facts)
    if isinstance(queue, FileFrameQueue):  # a chunk at a lower rate takes more pictures
        ladder = tuple(
            one for one in ladder if one.rate_divisor * facts.clip_frames <= queue.capacity
        )
    if service.latency_s is not None:
        ladder = tuple(
            one for one in ladder
            if (one.rate_divisor * facts.clip_frames - 1) / facts.fps < service.latency_s
        )  # fmt: skip
    offer = offer_of(recipe, service, ladder, facts)
    return ServiceTerms(service, ladder, offer, 1.0 / facts.fps)


def predicted(pipeline: Pipeline, service: ServiceLevel | None) -> Admission:
    """What the engine would tell a session with a service level, or with that of the settings."""
    recipe, engine = pipeline.recipe, pipeline.engine
    if service is None:
        service = preset_service(pipeline, is_live=pipeline.config.task == "video-to-video")
    answer = engine.predict(terms(pipeline, service, recipe, None))
    has_rows = engine.num_free_rows >= recipe.num_cache_rows
    if answer.verdict is Verdict.FULL and not has_rows:  # nothing rehearses without a governor
        return Admission(Verdict.REFUSED, answer.level, 0, pipeline.clock.now() + RETRY_S)
    return answer


def out_of_memory(pipeline: Pipeline) -> CapacityError:
    """What to say when a forward finds no memory and nothing can be given up."""
    remedy = "lower engine.sessions or the picture's size"
    if pipeline.config.engine.policy != "slo_aware":
        remedy += ', or set engine.policy = "slo_aware", which goes on with fewer steps'
    num_sessions = len(pipeline.engine.sessions)
    return CapacityError(f"no memory is left for a forward of {num_sessions} sessions; {remedy}")


def predicted_sessions(pipeline: Pipeline) -> int:
    """Sessions at full quality that an engine will keep up with: no more than it has memory for.

    From the work that a session means and what such work has cost; before anything was measured,
    as many as there is memory for.
    """
    places = pipeline.config.engine.sessions
    if not pipeline.engine.latency.is_calibrated:
        return places
    recipe, costs = pipeline.recipe, pipeline.engine.latency.costs().times(MARGIN)
    demand = demand_of(recipe, Quality(recipe.num_steps), pipeline_facts(pipeline, recipe))
    fitting = (count for count in range(places, 1, -1) if utilisation([demand] * count, costs) <= 1)
    return next(fitting, 1)


def latency_lines(pipeline: Pipeline) -> list[str]:
    """What the engine's latency model has learned, a line for each kind of work."""
    model = pipeline.engine.latency
    kinds = (
        ("encode", "picture", model.encode),
        ("denoise", "latent frame and step", model.denoise),
        ("decode", "picture", model.decode),
    )
    lines: list[str] = []
    for name, unit, work in kinds:
        if not work.num_observed:
            lines.append(f"{name}: nothing measured")
            continue
        fit = work.fit()
        lines.append(
            f"{name}: {1e3 * fit.fixed_s * work.drift:.2f} ms a call + "
            f"{1e3 * fit.per_unit_s * work.drift:.2f} ms a {unit}, "
            f"error {100 * work.error:.0f} % over {work.num_observed} measurements"
        )
    return lines

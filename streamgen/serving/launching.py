"""What programs need of torchrun and of several GPUs: kept apart from the ranks themselves."""

from __future__ import annotations

from streamgen.parallel.balancer import THRESHOLD
from streamgen.parallel.launched import Launch, launched
from streamgen.parallel.planner import CodecPlace
from streamgen.serving.ranks import keep_launched_rank

__all__ = ["DEFAULT_CODEC", "DEFAULT_REBALANCE", "Launch", "keep_launched_rank", "launched"]

DEFAULT_CODEC = str(CodecPlace.FIRST)
DEFAULT_REBALANCE = THRESHOLD

"""Blocks move to where they are done sooner, and not for nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

from streamgen.parallel.balancer import PATIENCE, WINDOW, Balancer
from streamgen.parallel.partition import Layout, imbalance, make_layout

NUM_BLOCKS = 24
Seconds = Callable[[int, int], float]  # of a rank with so many blocks


def settle(layout: Layout, seconds: Seconds, *, num_batches: int = 400) -> tuple[Layout, int]:
    """What a balancer makes of a layout in so many batches, and how often it moved blocks."""
    balancer, moves = Balancer(layout), 0
    for _ in range(num_batches):
        layout = balancer.layout
        wanted = balancer.observe(
            {rank: seconds(rank, len(layout.blocks(rank))) for rank in range(layout.num_ranks)}
        )
        if wanted is not None:
            balancer.moved(wanted)
            moves += 1
    return balancer.layout, moves


def unevenness(layout: Layout, seconds: Seconds) -> float:
    return imbalance([seconds(rank, len(layout.blocks(rank))) for rank in range(layout.num_ranks)])


def test_a_rank_of_half_the_speed_is_relieved() -> None:
    """Two to one comes under a tenth, in one move."""

    def seconds(rank: int, blocks: int) -> float:
        return blocks * (2.0 if rank == 1 else 1.0)

    even = make_layout("layers", 2, num_blocks=NUM_BLOCKS, num_passes=2)
    assert unevenness(even, seconds) > 0.3
    layout, moves = settle(even, seconds)
    assert unevenness(layout, seconds) < 0.1
    assert [len(layout.blocks(rank)) for rank in range(2)] == [16, 8]
    assert moves == 1


def test_a_codec_beside_the_blocks_is_found_out() -> None:
    """Seconds that do not shrink with the blocks: a second measurement tells them apart."""

    def seconds(rank: int, blocks: int) -> float:
        return blocks + (9.0 if rank == 0 else 0.0) + (3.0 if rank == 2 else 0.0)

    even = make_layout("layers", 3, num_blocks=NUM_BLOCKS, num_passes=2)
    layout, moves = settle(even, seconds)
    assert unevenness(layout, seconds) < 0.15
    assert moves <= 3


def test_noise_moves_nothing() -> None:
    """A tenth up or down, and one batch in ten that takes four times as long."""
    draw = random.Random(0)

    def seconds(rank: int, blocks: int) -> float:
        return blocks * draw.gauss(1.0, 0.1) * (4.0 if draw.random() < 0.1 else 1.0)

    even = make_layout("layers", 4, num_blocks=NUM_BLOCKS, num_passes=2)
    assert settle(even, seconds, num_batches=2000) == (even, 0)


def test_what_cannot_be_mended_is_left_alone() -> None:
    """All of it is fixed: no block would help."""

    def seconds(rank: int, blocks: int) -> float:
        return 100.0 * (rank + 1) + 0.01 * blocks

    even = make_layout("layers", 2, num_blocks=NUM_BLOCKS, num_passes=2)
    _, moves = settle(even, seconds, num_batches=2000)
    assert moves <= 2


def test_one_uneven_window_is_not_enough() -> None:
    """Nothing moves before so many windows in a row are uneven."""
    even = make_layout("layers", 2, num_blocks=NUM_BLOCKS, num_passes=2)
    balancer = Balancer(even)
    for batch in range(WINDOW * PATIENCE):
        wanted = balancer.observe({0: 1.0, 1: 3.0})
        assert (wanted is not None) == (batch == WINDOW * PATIENCE - 1)


def test_groups_of_steps_are_balanced_each_for_itself() -> None:
    def seconds(rank: int, blocks: int) -> float:
        return blocks * (1.0, 3.0, 1.0)[rank]

    mixed = make_layout("2+1", 3, num_blocks=NUM_BLOCKS, num_passes=3)
    layout, _ = settle(mixed, seconds)
    assert [len(layout.blocks(rank)) for rank in range(3)] == [18, 6, 24]

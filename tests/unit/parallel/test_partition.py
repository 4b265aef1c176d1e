from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists

from streamgen.errors import ConfigError
from streamgen.parallel.partition import balance, imbalance, make_layout


@given(
    costs=lists(floats(0.1, 10), min_size=2, max_size=8),
    speeds=lists(floats(0.5, 4), min_size=1, max_size=4),
)
def test_balance_is_as_good_as_trying_everything(costs: list[float], speeds: list[float]) -> None:
    """Pieces follow one another, none is empty, and no other cuts have a faster slowest worker."""
    speeds = speeds[: len(costs)]
    pieces = balance(costs, speeds)
    assert [index for piece in pieces for index in piece] == list(range(len(costs)))
    assert all(pieces)

    def slowest(cuts: tuple[int, ...]) -> float:
        edges = [0, *cuts, len(costs)]
        return max(
            sum(costs[begin:end]) / speed
            for begin, end, speed in zip(edges[:-1], edges[1:], speeds, strict=True)
        )

    best = min(slowest(cuts) for cuts in combinations(range(1, len(costs)), len(speeds) - 1))
    assert slowest(tuple(piece.stop for piece in pieces[:-1])) == pytest.approx(best)


@given(blocks=integers(1, 40), ranks=integers(1, 6), passes=integers(1, 5))
def test_every_pass_and_block_has_one_owner(blocks: int, ranks: int, passes: int) -> None:
    """Whatever the split, each block of each pass is run by one rank."""
    splits = ["layers", "steps", "+".join("1" * (ranks - 1)) + f"+{1}" if ranks > 1 else "1"]
    for split in splits:
        try:
            layout = make_layout(split, ranks, num_blocks=blocks, num_passes=passes)
        except ConfigError:
            assert ranks > (blocks if split == "layers" else passes)
            continue
        owned = [
            (step, block)
            for group in layout.groups
            for piece in group.blocks
            for step in group.passes
            for block in piece
        ]
        assert sorted(owned) == [(s, b) for s in range(passes) for b in range(blocks)]
        assert [layout.place(rank) for rank in range(ranks)] == [
            (g, s) for g, group in enumerate(layout.groups) for s in range(len(group.ranks))
        ]


def test_a_group_with_more_ranks_takes_more_passes() -> None:
    layout = make_layout("2+1", 3, num_blocks=8, num_passes=3)
    assert [group.passes for group in layout.groups] == [range(2), range(2, 3)]


def test_fixed_work_is_part_of_the_balance() -> None:
    """Who decodes, too, gets fewer blocks."""
    assert balance([1.0] * 8, [1.0, 1.0], [4.0, 0.0]) == (range(2), range(2, 8))


def test_imbalance_is_how_much_the_slowest_takes_over_the_mean() -> None:
    assert imbalance([2.0, 1.0, 1.5]) == pytest.approx(2 / 1.5 - 1)
    assert imbalance([0.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("split", "ranks", "blocks", "passes", "message"),
    [
        ("layers", 5, 4, 3, "5 ranks cannot share 4 blocks"),
        ("steps", 4, 30, 3, "4 groups of ranks cannot share 3 passes"),
        ("2+2", 3, 30, 3, "split 2+2 is for 4 ranks and there are 3"),
        ("2+x", 3, 30, 3, "split '2+x' is not known"),
        ("0+3", 3, 30, 3, "split '0+3' is not known"),
        ("layers", 2, 0, 3, "no blocks to divide"),
        ("layers", 0, 4, 3, "0 ranks run nothing"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    split: str, ranks: int, blocks: int, passes: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        make_layout(split, ranks, num_blocks=blocks, num_passes=passes)

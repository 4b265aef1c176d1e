"""Leases: sticky, on the replica with the most room, given up by who drains or is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples

from streamgen.serving.fleet.leases import Fleet
from streamgen.serving.gateway.bodies import Load, State


def load(places: int = 4, capacity: int | None = None, state: State = State.READY) -> Load:
    capacity = places if capacity is None else capacity
    return Load(state=state, sessions=0, waiting=0, places=places, capacity=capacity)


def fleet(**loads: Load) -> Fleet:
    made = Fleet()
    for name, each in loads.items():
        made.join(name, f"http://{name}")
        made.observe(name, each)
    return made


def placed(made: Fleet, lease: str, **options: object) -> str | None:
    replica = made.place(lease, **options)  # type: ignore[arg-type]
    return None if replica is None else replica.name


def test_sessions_go_where_most_room_is():
    made = fleet(a=load(4), b=load(4, capacity=2), c=load(8, capacity=5))
    assert [placed(made, str(n)) for n in range(5)] == ["c", "a", "c", "a", "c"]


def test_prediction_is_advice_and_memory_is_the_limit():
    """Beyond what they keep up with, replicas still take sessions; engines refuse by themselves."""
    made = fleet(a=load(2, capacity=1))
    assert [placed(made, str(n)) for n in range(3)] == ["a", "a", None]


def test_only_replicas_that_are_ready_get_sessions():
    states = {state.value: load(4, state=state) for state in State}
    made = fleet(**states)
    assert {placed(made, str(n)) for n in range(4)} == {"ready"}
    assert made.num_places == 4


def test_a_replica_that_is_suspected_gets_nothing_until_it_speaks():
    made = fleet(a=load())
    made.suspect("a")
    assert placed(made, "one") is None
    made.observe("a", load())
    assert placed(made, "one") == "a"


def test_a_replica_that_is_gone_leaves_its_sessions_and_the_others_stay():
    made = fleet(a=load(), b=load())
    where = {str(n): placed(made, str(n)) for n in range(6)}
    orphans = made.leave("a")
    assert orphans == {name for name, at in where.items() if at == "a"}
    assert made.num_leases == 3
    assert all(made.replica_of(name) is None for name in orphans)
    assert made.leave("a") == frozenset()


def test_sessions_move_from_who_drains_as_far_as_there_is_room():
    made = fleet(a=load(3), b=load(3))
    for n in range(4):
        made.place(str(n))
    made.observe("a", load(3, state=State.DRAINING))
    assert made.to_move() == ("0",)
    made.observe("b", load(4))
    assert made.to_move() == ("0", "2")


def test_another_address_is_another_replica():
    made = fleet(a=load())
    made.place("one")
    made.join("a", "http://elsewhere")
    assert made.replica_of("one") is None
    assert made.num_places == 0


MOVES = lists(tuples(sampled_from("placerbdjl"), integers(0, 7), integers(0, 2)), max_size=60)


@given(moves=MOVES)
def test_no_lease_is_ever_lost_doubled_or_too_many(moves: list[tuple[str, int, int]]):
    """Whatever happens: each lease is at one replica that is there, and none has too many."""
    made = fleet(r0=load(2), r1=load(3), r2=load(1))
    for kind, lease, number in moves:
        name, replica = f"s{lease}", f"r{number}"
        if kind in "pl":
            made.place(name, without=(replica,) if kind == "l" else ())
        elif kind == "r":
            made.release(name)
        elif kind == "b":
            made.leave(replica)
        elif kind == "d":
            made.observe(replica, load(3, state=State.DRAINING))
        else:
            made.join(replica, f"http://{replica}")
            made.observe(replica, load(3))
        held = [lease for each in made.replicas for lease in each.leases]
        assert len(held) == len(set(held)) == made.num_leases
        for each in held:
            at = made.replica_of(each)
            assert at is not None
            assert each in at.leases
        assert all(len(each.leases) <= 3 for each in made.replicas)

"""Layers and slots for experts go where there is room, and nowhere else."""

from __future__ import annotations

import itertools
import random

import pytest

from engine.plan.placement import LayerBytes, LayerPlace, Placement, Room, pack, place_layers

MOE = [LayerBytes(10, 2, 8, 20)] * 6
"""Six layers of 10 with 8 experts of 2 each: 26 when whole."""
AMPLE = 10**9


def test_layers_fill_the_last_room_first_and_stay_neighbours() -> None:
    assert pack([5, 5, 5, 5], 3, [10, 14]) == [0, 0, 1, 1]
    assert pack([5, 5, 5, 5], 3, [4, 14]) == [None, None, 1, 1]
    assert pack([5, 5], 3, [20, 7]) == [0, 0]  # the output does not fit beside the last layer
    assert pack([5], 0, []) == [None]


def test_everything_is_on_one_gpu_where_it_fits() -> None:
    places = place_layers(MOE, 4, [Room(0, 100), Room(2, 200)], AMPLE)
    assert places == (LayerPlace(2, 8),) * 6


def test_two_gpus_share_in_proportion_what_one_does_not_hold() -> None:
    places = place_layers(MOE, 4, [Room(0, 130), Room(1, 130)], AMPLE)
    assert [place.gpu for place in places] == [0, 0, 0, 1, 1, 1]
    assert all(place.experts == 8 for place in places)
    layers = [LayerBytes(10)] * 9
    by_gpu = [p.gpu for p in place_layers(layers, 0, [Room(0, 36), Room(1, 64)], AMPLE)]
    assert by_gpu == [0] * 3 + [1] * 6


def test_what_is_left_is_shared_evenly_by_the_layers() -> None:
    places = place_layers(MOE, 4, [Room(0, 64 + 2 * 15)], AMPLE)  # room for 15 experts
    assert [place.experts for place in places] == [3, 3, 3, 2, 2, 2]
    assert all(place.gpu == 0 for place in places)


def test_the_first_layers_stay_on_the_cpu_whole() -> None:
    places = place_layers(MOE, 4, [Room(0, 39)], AMPLE)
    assert places == (LayerPlace(None),) * 3 + (LayerPlace(0),) * 3
    placement = Placement(places, 100, "f16")
    assert placement.on_cpu == 3 and placement.gpus == (0,)


@pytest.mark.parametrize("rooms", [[], [Room(0, 9)]])
def test_without_room_all_layers_are_on_the_cpu(rooms: list[Room]) -> None:
    assert place_layers(MOE, 4, rooms, AMPLE) == (LayerPlace(None),) * 6


def test_where_ram_is_short_whole_layers_leave_it() -> None:
    # 120 bytes of experts, RAM for 70: three layers of 20 must go.
    places = place_layers(MOE, 4, [Room(0, 64 + 3 * 16 + 12)], 70)
    assert [place.experts for place in places] == [2, 2, 2, 8, 8, 8]
    # VRAM for two only: RAM stays short, which its ledger says.
    places = place_layers(MOE, 4, [Room(0, 64 + 2 * 16)], 70)
    assert [place.experts for place in places] == [0, 0, 0, 0, 8, 8]


def test_dense_layers_have_no_slots() -> None:
    layers = [LayerBytes(30), *MOE]
    places = place_layers(layers, 0, [Room(0, 30 + 60 + 24)], AMPLE)
    assert [place.experts for place in places] == [0, 2, 2, 2, 2, 2, 2]


def test_random_machines_are_never_overfull_and_more_room_never_holds_less() -> None:
    draw = random.Random(3)
    for _ in range(300):
        count, experts = draw.randint(1, 12), draw.randint(1, 9)
        layers = [
            LayerBytes(draw.randint(1, 30))
            if number < draw.randint(0, 2)
            else LayerBytes(draw.randint(1, 30), draw.randint(1, 6), experts, draw.randint(1, 60))
            for number in range(count)
        ]
        output, ram = draw.randint(0, 20), draw.randint(0, 400)
        rooms = [Room(2 * n, draw.randint(0, 200)) for n in range(draw.randint(1, 3))]
        least = [[], []]  # type: list[list[int]]
        for more in range(0, 200, 20):
            larger = [Room(room.gpu, room.bytes + more) for room in rooms]
            places = place_layers(layers, output, larger, ram)
            check(layers, output, larger, places)
            least[0].append(sum(place.gpu is not None for place in places))
            routed = [p.experts for p, layer in zip(places, layers, strict=True) if layer.experts]
            if ram == 400:  # enough: no layer has to be whole
                least[1].append(min(routed, default=0))
        for counts in least:
            assert all(less <= then for less, then in itertools.pairwise(counts))


def check(
    layers: list[LayerBytes], output: int, rooms: list[Room], places: tuple[LayerPlace, ...]
) -> None:
    assert len(places) == len(layers)
    taken = {room.gpu: 0 for room in rooms}
    for place, layer in zip(places, layers, strict=True):
        assert 0 <= place.experts <= layer.experts
        if place.gpu is None:
            assert not place.experts
        else:
            taken[place.gpu] += layer.fixed + place.experts * layer.expert
    if places[-1].gpu is not None:
        taken[places[-1].gpu] += output
    assert all(taken[room.gpu] <= room.bytes for room in rooms)
    order = [place.gpu for place in places]
    assert [key for key, _ in itertools.groupby(order)] == sorted(
        set(order), key=lambda gpu: -1 if gpu is None else gpu
    )

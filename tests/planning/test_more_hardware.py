"""More hardware never makes a worse pick: random machines that get one more card, more VRAM or more RAM, step by step."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_struct

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.hardware.gpus import GPUS
from hermes_cli.hardware.machine import Device, Machine
from hermes_cli.planning.best_placement import NEEDS
from hermes_cli.planning.recommend import Recommendation, RecommendOptions, recommendations

GIB = 1 << 30
CATALOGUE = shipped_catalogue()
# A few models stand for all in the quick test: small and large ones, one with tied embeddings, one with YaRN.
KEPT = {"hermes-3:3b": ("Q4_K_M",), "hermes-4:14b": ("Q4_K_M", "Q8_0"), "hermes-4:70b": ("Q4_K_M",)}
CARDS = [gpu for gpu in GPUS if gpu.vendor == "nvidia" and not gpu.unified]
STEPS, ROUNDING = 5, 1e-9  # points


def few_models() -> Catalogue:
    def kept(model: CatalogModel) -> CatalogModel:
        if model.short not in KEPT:  # its published results are part of the scale
            return replace_struct(model, gguf=())
        wanted = set(KEPT[model.short])
        repository = next(repository for repository in model.gguf if wanted <= set(repository.quantizations))
        entries = {name: repository.quantizations[name] for name in wanted}
        return replace_struct(model, gguf=(replace_struct(repository, quantizations=entries),))

    return replace_struct(CATALOGUE, models=tuple(map(kept, CATALOGUE.models)))


def card(some: random.Random) -> Device:
    """A card of the table, or one that nobody makes; perhaps with other programs on it."""
    if some.random() < 0.5:
        gpu = some.choice(CARDS)
        total, bandwidth, operations = gpu.memory, gpu.bandwidth, gpu.operations
    else:
        total = int(some.choice([1, 2, 3, 4, 6, 8, 11, 12, 16, 24, 32, 48, 80]) * GIB * some.uniform(0.9, 1))
        bandwidth = some.choice([14e9, 48e9, 112e9, 360e9, 936e9, 2e12])
        operations = some.choice([None, 1e13, 1.6e14])
    free = int(total * some.choice([1, 1, 0.9, 0.5, 0.1]))
    return Device("nvidia", "Card", total, free, bandwidth, "given", "cuda", operations=operations)


def machine(some: random.Random) -> Machine:
    devices = tuple(card(some) for _ in range(some.choice([0, 1, 1, 2])))
    devices += devices[:1] * some.choice([0, 0, 1, 2])
    ram = some.choice([4, 8, 12, 16, 24, 32, 64, 128, 256]) * GIB
    bandwidth = some.choice([20e9, 50e9, 80e9, 300e9])
    return Machine(devices, ram, int(ram * 0.9), bandwidth, "given", "a CPU", 8, ("AVX2",), "an OS", "/", 1, ("cpu",))


def grown(here: Machine, some: random.Random) -> Machine:
    devices = list(here.devices)
    way = some.choice(["card", "vram", "ram"] if len(devices) < 4 else ["vram", "ram"])
    more = int(some.choice([0.3, 1, 4, 16]) * GIB)
    if way == "card":
        devices.insert(some.randint(0, len(devices)), card(some))
    elif way == "vram" and devices:
        index = some.randrange(len(devices))
        device = devices[index]
        devices[index] = replace(device, total=device.total + more, free=device.free + more)
    else:
        return replace(here, ram_total=here.ram_total + more, ram_available=here.ram_available + more)
    return replace(here, devices=tuple(devices))


def rank(pick: Recommendation | None) -> tuple[bool, bool, float]:
    return (pick is not None, pick is not None and not pick.by_yarn, pick.score if pick else 0.0)


def check(catalogue: Catalogue, seeds: range) -> None:
    for seed in seeds:
        some = random.Random(seed)
        options = RecommendOptions(some.choice(list(NEEDS)), min_speed=some.choice([None, None, 10]))
        here, before = machine(some), None
        for _ in range(STEPS):
            pick = next(iter(recommendations(catalogue, here, options)), None)
            *kind, score = rank(pick)
            if before:
                *kind_before, score_before = rank(before)
                assert kind > kind_before or (kind == kind_before and score > score_before - ROUNDING), (seed, here)
            before, here = pick, grown(here, some)


@pytest.mark.slow
def test_more_hardware_never_makes_a_worse_pick() -> None:
    check(few_models(), range(100))


@pytest.mark.long
def test_more_hardware_never_makes_a_worse_pick_of_the_whole_catalogue() -> None:
    check(CATALOGUE, range(1000, 1500))

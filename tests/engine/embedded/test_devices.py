"""The GPUs that a model can be given, as llama.cpp's registry of devices lists them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hermes_cli.engine.embedded import devices
from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.embedded.devices import CARD, INTEGRATED, device_array, listed_gpus

CPU = 0
Listed = list[tuple[int, str, bytes | None]]  # kind, backend, identity


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    listed_gpus.cache_clear()
    yield
    listed_gpus.cache_clear()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Callable[[Listed], None]:
    """Makes llama.cpp list these devices; handles are 100, 101 and so on."""

    def lists(listed: Listed) -> None:
        def properties(handle: int, into: Any) -> None:  # noqa: ANN401 - a reference of ctypes
            into._obj.device_id = listed[handle - 100][2]  # noqa: SLF001 - what it refers to

        class Library:
            ggml_backend_dev_count = staticmethod(lambda: len(listed))
            ggml_backend_dev_get = staticmethod(lambda index: 100 + index)
            ggml_backend_dev_type = staticmethod(lambda handle: listed[handle - 100][0])
            ggml_backend_dev_backend_reg = staticmethod(lambda handle: listed[handle - 100][1])
            ggml_backend_dev_get_props = staticmethod(properties)

        monkeypatch.setitem(vars(llama_cpp), "load_shared_library", lambda _name, _path: Library)

    return lists


def test_this_build_answers() -> None:
    gpus = listed_gpus()
    assert len(gpus) == len(set(gpus))
    assert device_array(range(len(gpus) + 1)) is None, "llama.cpp lists fewer"


def test_cards_come_before_gpus_in_processors(registry: Callable[[Listed], None]) -> None:
    registry([(INTEGRATED, "Vulkan", b"0"), (CARD, "Vulkan", b"1"), (CPU, "CPU", None), (CARD, "Vulkan", b"2")])
    assert listed_gpus() == (101, 103)


def test_a_card_of_two_backends_is_one(registry: Callable[[Listed], None]) -> None:
    registry([(CARD, "CUDA", b"1"), (CARD, "CUDA", b"2"), (CARD, "Vulkan", b"2"), (CARD, "Vulkan", b"3")])
    assert listed_gpus() == (100, 101, 103)


def test_without_cards_the_integrated_gpus_of_one_backend(registry: Callable[[Listed], None]) -> None:
    registry([(CPU, "CPU", None), (INTEGRATED, "ROCm", b"1"), (INTEGRATED, "Vulkan", b"1")])
    assert listed_gpus() == (101,)


def test_the_chosen_ones_end_with_null(registry: Callable[[Listed], None]) -> None:
    registry([(CARD, "CUDA", b"1"), (CARD, "CUDA", b"2"), (CARD, "CUDA", b"3")])
    chosen, none = device_array((2, 0)), device_array(())
    assert chosen is not None
    assert none is not None
    assert (list(chosen), list(none)) == ([102, 100, None], [None])
    assert ctypes.sizeof(chosen) == 3 * ctypes.sizeof(ctypes.c_void_p)
    assert device_array((3,)) is None


def test_another_build_leaves_it_to_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(llama_cpp), "load_shared_library")
    assert devices.listed_gpus() == ()

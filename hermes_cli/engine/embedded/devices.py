"""GPUs as llama.cpp lists them; a model can be given some of them, and the others get nothing, not even a context.

The Python package leaves this part of the C API out (ggml/include/ggml-backend.h).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

from hermes_cli.engine.embedded.bindings import llama_cpp

CARD, INTEGRATED = 1, 2  # enum ggml_backend_dev_type


class _Properties(ctypes.Structure):
    """`struct ggml_backend_dev_props`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 64),  # a few flags, more with each version
    )


@lru_cache(maxsize=1)
def listed_gpus() -> tuple[int, ...]:
    """Return the handles of the GPUs that llama.cpp uses where nothing is chosen, in order; () if it cannot be asked.

    They are the cards of all backends, each card once; without any card, the integrated GPUs of one backend
    (`llama_prepare_model_devices`, src/llama.cpp).
    """
    api = vars(llama_cpp)
    try:
        registry, base = (api["load_shared_library"](name, api["_base_path"]) for name in ("ggml", "ggml-base"))
        get, kind_of, backend_of = (
            registry.ggml_backend_dev_get,
            base.ggml_backend_dev_type,
            base.ggml_backend_dev_backend_reg,
        )
        count, properties_of = registry.ggml_backend_dev_count, base.ggml_backend_dev_get_props
    except (AttributeError, KeyError, OSError, RuntimeError):  # a build in one library, or one with other names
        return ()
    count.restype = ctypes.c_size_t
    get.argtypes, get.restype = [ctypes.c_size_t], ctypes.c_void_p
    for function in (kind_of, backend_of):
        function.argtypes = [ctypes.c_void_p]
    backend_of.restype = ctypes.c_void_p
    properties_of.argtypes, properties_of.restype = [ctypes.c_void_p, ctypes.POINTER(_Properties)], None
    handles = [get(index) for index in range(count())]
    cards = [handle for handle in handles if kind_of(handle) == CARD]
    if not cards:
        integrated = [handle for handle in handles if kind_of(handle) == INTEGRATED]
        return tuple(handle for handle in integrated if backend_of(handle) == backend_of(integrated[0]))
    if len({backend_of(handle) for handle in cards}) == 1:
        return tuple(cards)

    def identity(handle: int) -> object:
        """Ask only where it is needed: asking for properties takes memory of a card."""
        properties = _Properties()
        properties_of(handle, ctypes.byref(properties))
        return properties.device_id or handle

    first: dict[object, int] = {}
    for handle in cards:
        first.setdefault(identity(handle), handle)
    return tuple(first.values())


def device_array(chosen: Sequence[int]) -> ctypes.Array[ctypes.c_void_p] | None:
    """Return `llama_model_params.devices` for the GPUs at these positions; None if llama.cpp lists fewer."""
    gpus = listed_gpus()
    if any(index >= len(gpus) for index in chosen):
        return None
    return (ctypes.c_void_p * (len(chosen) + 1))(*(gpus[index] for index in chosen))  # NULL ends it

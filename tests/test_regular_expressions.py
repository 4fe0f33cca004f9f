"""No regular expression takes much longer for a longer text than that text is longer: strangers write those texts."""

from __future__ import annotations

import importlib
import re
import time
from pathlib import Path

import pytest

import hermes_cli

SIZE = 16_384  # characters; linear ones take half a millisecond for it, quadratic ones a second
LIMIT = 0.1  # seconds of processor time
TRUSTED = {  # and why they may be quadratic
    "hermes_cli.hardware": "names of devices, of drivers and of the command line",
    "hermes_cli.chat.endpoint.address": "the command line",
    "hermes_cli.server.settings": "whole texts are matched, never searched",
    "hermes_cli.store.xet": "errors of hf_xet",
}
PARTS = [
    *'aA0 .-_/:<>"{}[]()|=,*#@\\\n\t`',
    *('\\"', "a.", "0.", "a ", " \n", "<a", "</", "a:", "a-", "--", "```", "://", "{{", "%", "1,", "a=", "é", "\u2028"),
    *("load_tensors: layer 1 assigned to device a", "using device a (", "layer 1: dev = ", "GGML_ASSERT(", "start:"),
]


def modules() -> list[str]:
    """The names of the modules that compile expressions; none of them is imported."""
    root = Path(hermes_cli.__path__[0])
    found = [
        path.relative_to(root.parent) for path in sorted(root.rglob("*.py")) if "re.compile" in path.read_text("utf-8")
    ]
    return [".".join(path.with_suffix("").parts) for path in found]


def patterns(module: str) -> dict[str, re.Pattern[str]]:
    """The compiled expressions of a module, by module and name; those that it takes from others are theirs."""
    found: dict[str, re.Pattern[str]] = {}
    for name, value in vars(importlib.import_module(module)).items():
        values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        for number, pattern in enumerate(values):
            if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
                found[f"{module}.{name}" + (f"[{number}]" if number else "")] = pattern
    return found


@pytest.mark.parametrize("module", modules())
def test_their_time_is_linear(module: str) -> None:
    for name, pattern in patterns(module).items():
        if name.startswith(tuple(TRUSTED)):
            continue
        for part in PARTS:
            text = "a" + part * (SIZE // len(part)) + "\0"
            started = time.process_time()
            pattern.sub("", text)
            pattern.fullmatch(text)
            taken = time.process_time() - started
            assert taken < LIMIT, (name, pattern.pattern, part, taken)

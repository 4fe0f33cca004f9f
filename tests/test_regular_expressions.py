"""No regular expression takes much longer for a longer text than that text is longer: strangers write those texts."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time

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


def patterns() -> dict[str, re.Pattern[str]]:
    """All compiled expressions of all modules, by module and name."""
    found: dict[str, re.Pattern[str]] = {}
    for module in pkgutil.walk_packages(hermes_cli.__path__, "hermes_cli."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            values = (
                value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            )
            for number, pattern in enumerate(values):
                if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
                    found.setdefault(pattern.pattern, pattern)
                    found[f"{module.name}.{name}" + (f"[{number}]" if number else "")] = found.pop(pattern.pattern)
    return found


PATTERNS = patterns()


@pytest.mark.parametrize("name", [name for name in PATTERNS if not name.startswith(tuple(TRUSTED))])
def test_its_time_is_linear(name: str) -> None:
    pattern = PATTERNS[name]
    for part in PARTS:
        text = "a" + part * (SIZE // len(part)) + "\0"
        started = time.process_time()
        pattern.sub("", text)
        pattern.fullmatch(text)
        taken = time.process_time() - started
        assert taken < LIMIT, (pattern.pattern, part, taken)

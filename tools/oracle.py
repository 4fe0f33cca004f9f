"""Asks llama.cpp how much memory it would allocate, without allocating it.

    echo '[{"model": "hermes-3:8b", "context": 8192}]' | python tools/oracle.py

Reads a JSON list of jobs (the fields of `Settings`, and a model of the catalogue) and writes a JSON list of answers in
MiB, as llama.cpp's log says (`no_alloc`). A process of its own, because llama.cpp aborts when it dislikes something.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import llama_cpp
from skeleton import write_skeleton

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.gguf.types import TYPE_NUMBERS

BUFFER = re.compile(r"(compute|output)\s+buffer size\s*=\s*([\d.]+) MiB")
CACHE = re.compile(r"llama_kv_cache: size =\s*([\d.]+) MiB")

Job = dict[str, Any]
Answer = dict[str, float]


class _Log:
    """Every line that llama.cpp writes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._callback = llama_cpp.llama_log_callback(self._receive)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, _level: int, text: bytes, _: object) -> None:
        self.lines.append(text.decode("utf-8", "replace"))

    def take(self) -> str:
        """All of it since the last call."""
        text = "".join(self.lines)
        self.lines.clear()
        return text


def _context_params(job: Job) -> Any:  # noqa: ANN401 - a ctypes structure
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = job["context"]
    params.n_seq_max = job.get("slots", 1)
    params.n_ubatch = job.get("micro_batch", 512)
    params.n_batch = max(2048, params.n_ubatch)
    params.type_k = TYPE_NUMBERS[job.get("k_type", "f16")]
    params.type_v = TYPE_NUMBERS[job.get("v_type", "f16")]
    params.flash_attn_type = int(job.get("flash_attention", True))
    params.kv_unified = job.get("unified", True)
    params.n_threads = 1
    return params


def answers(jobs: list[Job]) -> list[Answer]:
    """What llama.cpp logs for each job; jobs of one model should stand together. In this process."""
    log = _Log()
    models = {model.short: model for model in shipped_catalogue().models}
    result = []
    for name, group in groupby(jobs, key=lambda job: job["model"]):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "skeleton.gguf"
            write_skeleton(path, models[name].architecture, models[name].context.trained)
            params = llama_cpp.llama_model_default_params()
            params.no_alloc, params.load_mode, params.n_gpu_layers = True, llama_cpp.LLAMA_LOAD_MODE_NONE, 0
            loaded = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
            for job in group:
                log.take()
                context = llama_cpp.llama_init_from_model(loaded, _context_params(job))
                text = log.take()
                if not context:
                    raise RuntimeError(f"llama.cpp refused {job}: {text[-500:]}")
                llama_cpp.llama_free(context)
                sizes = {kind: float(size) for kind, size in BUFFER.findall(text)}
                result.append({**sizes, "kv_cache": float(CACHE.findall(text)[0])})
            llama_cpp.llama_model_free(loaded)
    return result


def ask(jobs: list[Job]) -> list[Answer]:
    """The same from a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(jobs), capture_output=True, text=True, check=True
    )
    answered: list[Answer] = json.loads(done.stdout)
    return answered


def grid() -> list[Job]:
    """More than 300 jobs: every architecture of the catalogue, contexts from 512 to the maximum, and all settings."""
    jobs: list[Job] = []
    seen = set()
    for model in shipped_catalogue().models:
        if model.architecture in seen:
            continue
        seen.add(model.architecture)
        most = model.context.trained
        middle = min(8192, most)
        every: list[Job] = [
            *({"context": context, "flash_attention": flash} for context in (512, most) for flash in (True, False)),
            *({"context": middle, "micro_batch": size, "flash_attention": size != 128} for size in (128, 2048)),  # noqa: PLR2004
            {"context": most, "micro_batch": 1024},
            *({"context": middle, "slots": slots, "unified": slots == 2} for slots in (2, 8)),  # noqa: PLR2004
            {"context": middle, "slots": 4, "unified": False, "flash_attention": False},
            {"context": middle, "k_type": "q8_0", "v_type": "q8_0"},
            {"context": most, "k_type": "q4_0", "v_type": "q4_0"},
            {"context": middle, "k_type": "q8_0", "flash_attention": False},
            {"context": 1000, "k_type": "bf16", "v_type": "q5_1"},
        ]
        jobs += ({"model": model.short, **job} for job in every)
    return jobs


if __name__ == "__main__":
    print(json.dumps(answers(json.load(sys.stdin))))

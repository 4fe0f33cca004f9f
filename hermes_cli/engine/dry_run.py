"""A process of its own that says what llama.cpp would allocate for a plan, without allocating it (`no_alloc`).

llama.cpp ends the whole process over some files; here that costs nothing. `fit_check.py` starts it and talks to it in
lines of JSON: first the file, then one plan after the other, each of which is answered before the next one comes. It
imports as little as it can, because somebody waits for it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.engine.buffers import allocation, devices
from hermes_cli.engine.llama import LlamaContext, LlamaModel
from hermes_cli.engine.log import LOG
from hermes_cli.errors import EngineError, IntegrityError
from hermes_cli.planning.memory import ContextSettings, Weights

if TYPE_CHECKING:
    from typing import TextIO

    Json = dict[str, Any]


class Rehearsal:
    """Plans for one file; it is read again only when its layers are to lie elsewhere."""

    def __init__(self, path: Path, weights: Weights) -> None:
        self._path = path
        self._weights = weights
        self._model: LlamaModel | None = None
        self._layers: object = None
        self._log = ""

    def answer(self, plan: Json) -> Json:
        """What a plan needs in RAM and then on each device, in bytes; or why it cannot be.

        Raises:
            IntegrityError: llama.cpp refused the file.
        """
        model = self._placed(plan["gpu_layers"], plan["tensor_split"])
        LOG.kept = []
        try:
            LlamaContext(model, ContextSettings(**plan["settings"]), threads=plan["threads"]).close()
            parts = allocation(self._log, "".join(LOG.kept), self._weights)
        except EngineError as error:
            return {"refusal": error.message}
        return {"parts": [vars(part) for part in parts], "devices": [vars(one) for one in devices(self._log)]}

    def _placed(self, gpu_layers: int, tensor_split: list[float]) -> LlamaModel:
        if self._model is None or self._layers != (gpu_layers, tensor_split):
            if self._model:
                self._model.close()
            LOG.kept = []
            self._model = LlamaModel(self._path, gpu_layers=gpu_layers, tensor_split=tensor_split, rehearse=True)
            self._layers = (gpu_layers, tensor_split)
            self._log = "".join(LOG.kept)
        return self._model


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until there are no more requests, or the file turns out to be none."""
    first = json.loads(requests.readline())
    table = first["weights"]
    rehearsal = Rehearsal(Path(first["path"]), Weights(**{**table, "layers": tuple(table["layers"])}))
    LOG.verbose = first["verbose"]
    for line in requests:
        try:
            answer = rehearsal.answer(json.loads(line))
        except IntegrityError as error:
            answer = {"file": error.message, "hint": error.hint}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Be that process. Whatever else writes to standard output, such as a driver, is led to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)
        answers.flush()
        os._exit(0)  # everything is said; drivers take their time to shut down

"""The engines and sandboxes of forked commands, as forks as well.

Each is a real process with the pipes, environment, arguments and exit status that it would have; only the imports were
made before. What children import and commands do not is hidden from the commands. Engines and sandboxes that tests
start without a forked command start as those of users do, in a Python of their own.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from hermes_cli.child_process import command
from hermes_cli.engine.embedded.child import SPIN_COUNT

PRELOADED = (
    *("hermes_cli.engine.embedded.worker", "hermes_cli.engine.embedded.dry_run", "hermes_cli.engine.embedded.loading"),
    *("hermes_cli.engine.embedded.saved_prefixes", "hermes_cli.engine.embedded.bench", "llguidance.numpy"),
    *("hermes_cli.prompting.sandbox", "hermes_cli.prompting.grammar_check", "hermes_cli.prompting.template"),
)
# Libraries read these when they are loaded: what `Child.start` sets, and tests change for no command that is a fork.
VARIABLES = {"OPENBLAS_NUM_THREADS": "1", "GOMP_SPINCOUNT": SPIN_COUNT}
CHILDREN = {command("hermes_cli.engine.embedded.worker"), command("hermes_cli.prompting.sandbox")}
_LENGTH = len(command(""))
_hidden: dict[str, ModuleType] = {}
_unwritten: list[object] = []  # streams of the command, which nobody may flush in its child, too


class Popen(subprocess.Popen[Any]):
    """A `subprocess.Popen` whose children of hermes begin after the fork, where others become another program."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:  # noqa: ANN401 - as there
        if isinstance(args, tuple | list) and (*args[:_LENGTH],) in CHILDREN:
            options["preexec_fn"] = lambda: _become(args[_LENGTH - 1 :], options["env"])
        super().__init__(args, *rest, **options)


def preload() -> None:
    """Import what children need, hide it, and have them start as forks."""
    os.environ.update(VARIABLES)
    before = set(sys.modules)
    for name in PRELOADED:
        import_module(name)
    for name in sys.modules.keys() - before:
        _hidden[name] = sys.modules.pop(name)
    for package, name, module in _attributes():
        if vars(package).get(name) is module:
            delattr(package, name)
    subprocess.Popen = Popen  # type: ignore[misc]


def _attributes() -> list[tuple[ModuleType, str, ModuleType]]:
    """The hidden modules of packages that are not hidden: package, name in it, module."""
    names = [(*name.rpartition("."), module) for name, module in _hidden.items()]
    return [(sys.modules[package], name, module) for package, _, name, module in names if package in sys.modules]


def _become(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Be the child, whose pipes are its standard streams already, and end."""
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(environment)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)  # as Python does when it starts
        signal.set_wakeup_fd(-1)
        _unwritten.extend((sys.stdin, sys.stdout, sys.stderr))
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python opens it
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for package, name, module in _attributes():
            setattr(package, name, module)
        sys.modules.update(_hidden)
        program, *sys.argv[1:] = arguments
        gc.enable()  # it is off where `subprocess` forks
        exec(program, {"__name__": "__main__"})  # noqa: S102 - as Python does with -c
        os._exit(0)
    except BaseException:  # noqa: BLE001 - as Python does at the top
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)

"""A process that fetches what it is told, and what one asks about the library after it: for tests/store and tools/faults.py.

Jobs come as lines of JSON on standard input, outcomes go to standard output in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from hermes_zygote import ForkedProcess, zygote
from memory_use import most_memory

from hermes_cli.errors import HermesError

QUICK = {"delay": 0.01, "max_delay": 0.05, "max_attempts": 4, "read_timeout": 60.0}  # RetryPolicy for tests

HANG = 300.0  # seconds; no job takes as long on any machine


class Client:
    """The process. It outlives its jobs, unless it is killed."""

    def __init__(self, environment: dict[str, str], *, file_limit: int = 0) -> None:
        pipe, variables = subprocess.PIPE, {**os.environ, **environment}
        forks = zygote()
        self._process: ForkedProcess | subprocess.Popen[str] = (
            forks.start(
                [str(file_limit)], Path.cwd(), variables, pipe, f"from {Path(__file__).stem} import main; main()"
            )
            if forks
            else subprocess.Popen(
                [sys.executable, __file__, str(file_limit)],
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env=variables,
            )
        )

    def start(self, cache: Path, repo: str, *files: str, **options: object) -> None:
        """Begin to fetch into a cache; the outcome is not waited for."""
        assert self._process.stdin
        job = {"cache": str(cache), "repo": repo, "files": files, **options}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def outcome(self) -> dict[str, Any]:
        """What became of it: `paths`, or `error` with `message`, `hint` and `exit`; and all `events`."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], HANG)[0]:
            self.kill()
            raise RuntimeError("the client hangs")
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr
            raise RuntimeError(self._process.stderr.read())
        outcome: dict[str, Any] = json.loads(line)
        return outcome

    def fetch(self, cache: Path, repo: str, *files: str, **options: object) -> dict[str, Any]:
        """Fetch into a cache."""
        self.start(cache, repo, *files, **options)
        return self.outcome()

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """No more jobs: its exit status and what it wrote to standard error."""
        _, errors = self._process.communicate(timeout=HANG)
        return self._process.returncode or 0, errors

    def kill(self) -> None:
        """As kill -9 does."""
        self.send(signal.SIGKILL)
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


def unsound(cache: Path, right: Iterable[Path]) -> list[str]:
    """Files of a library that are not what they should be: under a name, anything but one of the right contents."""
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in right}
    named = [path for path in cache.glob("models--*/snapshots/**/*") if path.is_file()]
    blobs = [path for path in cache.glob("models--*/blobs/*") if ".incomplete" not in path.name]
    return [path.name for path in named + blobs if hashlib.sha256(path.read_bytes()).hexdigest() not in hashes]


def _work(job: dict[str, Any]) -> dict[str, Any]:
    from hermes_cli.store import download  # noqa: PLC0415 - the environment is set first
    from hermes_cli.store.transfer import RetryPolicy  # noqa: PLC0415

    events: list[dict[str, Any]] = []
    try:
        files = download.resolve(job["repo"], job.get("revision"), job["files"])
        before = [asdict(state) | {"path": str(state.path)} for state in download.file_states(files)]
        found = download.fetch(
            files,
            lambda event: events.append(asdict(event)),
            verify=job.get("verify", True),
            force=job.get("force", False),
            policy=RetryPolicy(**{**QUICK, **job.get("policy", {})}),
        )
        after = [asdict(state) | {"path": str(state.path)} for state in download.file_states(files)]
        outcome: dict[str, Any] = {"paths": [str(path) for path in found], "before": before, "after": after}
    except HermesError as error:
        outcome = {
            "error": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit": int(error.exit_code),
        }
    return outcome | {
        "events": events,
        "steps": _STEPS[:],
        "memory": most_memory(),
    }


_STEPS: list[str] = []


def _record(name: str) -> None:
    """Note each call of a function of `os` that makes files last, and do it."""
    function = getattr(os, name)

    def recorded(what: int | str | Path, *more: str | Path) -> None:
        path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else Path(what)
        _STEPS.append(f"{name} {path.name}")
        function(what, *more)

    setattr(os, name, recorded)


def main() -> None:
    """Do the jobs."""
    for name in ("fsync", "replace") if sys.platform == "linux" else ():
        _record(name)
    limit = int(sys.argv[1])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for line in sys.stdin:
        job = json.loads(line)
        _STEPS.clear()
        os.environ |= {"HF_HUB_CACHE": job["cache"], "HERMES_LLM_CACHE_DIR": job["cache"] + ".hermes"}
        print(json.dumps(_work(job)), flush=True)  # noqa: T201 - that is what the parent reads


if __name__ == "__main__":
    main()

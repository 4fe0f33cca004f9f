"""tools/gpu_check.py on the CPU: the rehearsal of what it does with a card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import HANG, clean_environment

SCRIPT = Path(__file__).parents[1] / "tools" / "gpu_check.py"


def test_a_rehearsal_on_the_cpu() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json"],
        capture_output=True,
        text=True,
        timeout=HANG,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    verdicts = {row["check"]: row["verdict"] for row in report["rows"]}
    assert verdicts.pop("decode speed") == "told"
    assert {"memory after a kill", "the next request", "greedy text"} < verdicts.keys()
    assert set(verdicts.values()) == {"ok"}

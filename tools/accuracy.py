"""Compares planned memory with llama.cpp's own numbers (tools/oracle.py) and writes the table of docs/memory.md.

python tools/accuracy.py
"""

from __future__ import annotations

import re
from pathlib import Path

import oracle

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.planning.memory import ContextSettings, on_cpu, weights

PAGE = Path(__file__).parent.parent / "docs" / "memory.md"
MIB = 1 << 20


def worst() -> tuple[int, int, dict[str, tuple[float, float]]]:
    """Points, architectures, and for each part the largest difference in MiB and as a share of what llama.cpp says."""
    jobs = oracle.grid()
    models = {model.short: model for model in shipped_catalogue().models}
    largest = {"kv_cache": (0.0, 0.0), "output": (0.0, 0.0), "compute": (0.0, 0.0)}
    for job, said in zip(jobs, oracle.ask(jobs), strict=True):
        settings = ContextSettings(**{key: value for key, value in job.items() if key != "model"})
        a = models[job["model"]].architecture
        planned = on_cpu(a, weights(a, "F16", imatrix=False), settings)
        for part, known in largest.items():
            difference = abs(getattr(planned, part) / MIB - said[part])
            largest[part] = max(known, (difference, difference / said[part]))
    return len(jobs), len({models[job["model"]].architecture for job in jobs}), largest


def main() -> None:
    """Measure and write."""
    points, architectures, largest = worst()
    text = PAGE.read_text(encoding="utf-8")
    text = re.sub(
        r"at\n\S+ points: all \S+ architectures", f"at\n{points} points: all {architectures} architectures", text
    )
    for label, part in (("KV cache", "kv_cache"), ("output", "output"), ("compute", "compute")):
        mib, share = largest[part]
        text = re.sub(rf"\| {label} \| .* \|\n", f"| {label} | {mib:.3f} MiB ({share:.4%}) |\n", text)
    PAGE.write_text(text, encoding="utf-8")
    print(points, architectures, largest)


if __name__ == "__main__":
    main()

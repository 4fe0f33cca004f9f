"""Reading a header next to the `gguf` package, and loading the compiled catalogue next to YAML, in one run.

    python benchmarks/catalogue.py                        # a header with an invented vocabulary of 128,000 tokens
    python benchmarks/catalogue.py ggml-vocab-llama-bpe.gguf   # and that of a real file

Needs the `gguf` package (dependency group `demo`). Sides take turns; the median ratio is printed first.
"""

import argparse
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from hermes_cli import paths
from hermes_cli.catalog import load
from hermes_cli.gguf.header import read_header

GGUFReader = import_module("gguf").GGUFReader  # not `import gguf`: tests/gguf has the same name for mypy
TOKENS, MERGES = 128_256, 280_147  # Llama 3's


def _strings(key: str, count: int) -> bytes:
    body = b"".join(struct.pack("<Q", 7) + f"{number:07}".encode() for number in range(count))
    return _text(key) + struct.pack("<IIQ", 9, 8, count) + body


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def invented(path: Path) -> None:
    """A file with a vocabulary as large as Llama 3's and nothing else."""
    entries = [_strings("tokenizer.ggml.tokens", TOKENS), _strings("tokenizer.ggml.merges", MERGES)]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))


def seconds(job: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def compare(title: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> None:
    """Print the median ratio of pairs, and both medians in milliseconds."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    mine, other = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    print(f"{title}: {ratio:.4f} x the time ({mine:.1f} ms and {other:.1f} ms, {rounds} pairs)")


def main() -> None:
    """Compare on every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "invented.gguf"
        invented(made)
        for file in (made, *options.files):
            title = f"{file.name}, hermes / gguf package"
            compare(title, partial(read_header, file), partial(GGUFReader, file), options.rounds)
    text = paths.catalog().read_text(encoding="utf-8")
    load.shipped_catalogue()
    compare("catalogue, compiled / YAML", load.shipped_catalogue, lambda: load.read_yaml(text), options.rounds)


if __name__ == "__main__":
    main()

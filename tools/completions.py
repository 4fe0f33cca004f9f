"""Write completions/ anew, or with --check fail if it is not what the program generates.

The shell scripts are Typer's own; they ask `hermes` for what can follow.
"""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "completions"
FILE_NAMES = {"bash": "{}.bash", "zsh": "_{}", "fish": "{}.fish"}
PROGRAMS = ("hermes", "hermes-llm")


def script(program: str, shell: str) -> str:
    """The completion script of a program for a shell, as the installed program prints it."""
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    environment = {**os.environ, variable: f"source_{shell}"}
    executable = Path(sys.executable).with_name(program)
    text = subprocess.run([executable], env=environment, check=True, capture_output=True, text=True).stdout
    return text.strip() + "\n"


def main(*, check: bool) -> int:
    """Write or compare all six files; returns the exit code."""
    stale = []
    for program in PROGRAMS:
        for shell, name in FILE_NAMES.items():
            path, text = FOLDER / name.format(program), script(program, shell)
            if not check:
                path.write_text(text, encoding="utf-8")
            elif path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
    if stale:
        print(f"out of date: {', '.join(stale)}; run `make completions`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))

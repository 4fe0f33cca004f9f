"""`hermes du`: disk usage of the library."""

from __future__ import annotations

from hermes_cli import paths
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for


def command(json: JsonOption = False, quiet: QuietOption = False, no_color: NoColorOption = False) -> None:
    """Show the disk usage of models and of the rest of the Hub's cache.

    Counts blocks on the disk, each file once, however many names, revisions or links it has.
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)

    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.inventory import inventory, usage
    from hermes_cli.units import gigabytes

    found = usage(inventory(load_catalogue()))
    rows = [
        (gigabytes(model.bytes), model.model.name, "also used elsewhere" if model.used_elsewhere else "")
        for model in found.models
    ]
    rows += [
        (gigabytes(partial.bytes), partial.repo, f"{partial.count} unfinished: hermes rm --partial {partial.repo}")
        for partial in found.partial
    ]
    if found.other:
        rows.append((gigabytes(found.other), "other files in the Hub's cache", "no models of llama.cpp: hf cache ls"))
    rows.append((gigabytes(found.total), "together", ""))
    console.table(("SIZE", "WHAT", ""), rows, right=("SIZE",))
    console.note(
        f"{paths.models_dir()} is on a disk with {gigabytes(found.disk.free)} free of {gigabytes(found.disk.total)}"
    )
    console.document(
        {
            "models": [
                {
                    "name": model.model.name,
                    "repository": model.model.repo,
                    "disk_bytes": model.bytes,
                    "used_elsewhere": model.used_elsewhere,
                }
                for model in found.models
            ],
            "partial": [
                {"repository": partial.repo, "files": partial.count, "disk_bytes": partial.bytes}
                for partial in found.partial
            ],
            "other_bytes": found.other,
            "total_bytes": found.total,
            "disk": {"path": str(paths.models_dir()), "total_bytes": found.disk.total, "free_bytes": found.disk.free},
        }
    )

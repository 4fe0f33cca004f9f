"""`hermes du`: disk usage of the library."""

from __future__ import annotations

from hermes_cli import paths
from hermes_cli.commands.options import with_console
from hermes_cli.console import Console


@with_console
def command(console: Console) -> None:
    """Show the disk usage of models and of the rest of the Hub's cache.

    Counts blocks on the disk, each file once, however many names, revisions or links it has.
    """
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.inventory import inventory, usage
    from hermes_cli.units import gigabytes

    used = usage(inventory(load_catalogue()))
    rows = [
        *(
            (model.bytes, model.model.name, "also used elsewhere" if model.used_elsewhere else "")
            for model in used.models
        ),
        *(
            (part.bytes, part.repo, f"{part.count} unfinished: hermes rm --partial {part.repo}")
            for part in used.partial
        ),
    ]
    if used.other:
        rows.append((used.other, "other files in the Hub's cache", "no models of llama.cpp: hf cache ls"))
    rows.append((used.total, "together", ""))
    cells = [(gigabytes(size), *texts) for size, *texts in rows]
    console.table(("SIZE", "WHAT", "NOTE"), cells, right=("SIZE",), prose="NOTE")
    folder, disk = paths.models_dir(), used.disk
    console.note(f"{folder} is on a disk with {gigabytes(disk.free)} free of {gigabytes(disk.total)}")
    console.document(
        {
            "models": [
                {
                    "name": model.model.name,
                    "repository": model.model.repo,
                    "disk_bytes": model.bytes,
                    "used_elsewhere": model.used_elsewhere,
                }
                for model in used.models
            ],
            "partial": [
                {"repository": part.repo, "files": part.count, "disk_bytes": part.bytes} for part in used.partial
            ],
            "other_bytes": used.other,
            "total_bytes": used.total,
            "disk": {"path": str(folder), "total_bytes": disk.total, "free_bytes": disk.free},
        }
    )

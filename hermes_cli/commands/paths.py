"""`hermes paths`: the folders of hermes on this machine."""

from __future__ import annotations

from hermes_cli import paths
from hermes_cli.commands.options import with_console
from hermes_cli.console import Console, Voice


@with_console
def command(console: Console) -> None:
    """Show the folders of hermes and the variables that move them.

    Folders are made when first needed. Models are in the Hugging Face Hub's own cache, shared with other tools.
    """
    folders = {
        "models": (paths.models_dir(), "HF_HUB_CACHE or HF_HOME"),
        "data": (paths.data_dir(), "HERMES_LLM_DATA_DIR"),
        "chats": (paths.chats_dir(), "HERMES_LLM_DATA_DIR"),
        "config": (paths.config_dir(), "HERMES_LLM_CONFIG_DIR"),
        "logs": (paths.log_dir(), "HERMES_LLM_LOG_DIR"),
        "cache": (paths.cache_dir(), "HERMES_LLM_CACHE_DIR"),
        "demo": (paths.asset("demo.gguf"), "ships with hermes"),
    }
    width = max(len(str(path)) for path, _ in folders.values())
    for name, (path, variable) in folders.items():
        quiet = console.voice is Voice.QUIET
        console.text(f"{path}\n" if quiet else f"{name:8}{path!s:{width}}  {variable}\n")
    console.document({name: str(path) for name, (path, _) in folders.items()})

"""Slash commands, by topic. Importing a file of them registers its commands, in the order of /help."""

from hermes_cli.chat.slash import settings, presets, files, turns  # noqa: F401, I001 - they register their commands

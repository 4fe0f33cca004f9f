"""The model that is meant where none was named: the best that is installed, else the best there is, once it is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.commands.asking import agreed
from hermes_cli.console import Voice
from hermes_cli.errors import HermesError, NotFoundError
from hermes_cli.planning.recommend import RecommendOptions, recommendations
from hermes_cli.store.library import installed_quantizations
from hermes_cli.units import gigabytes

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.console import Console
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.recommend import Recommendation


def best_installed(
    command: str, wish: RecommendOptions, catalogue: Catalogue, machine: Machine, console: Console
) -> Recommendation:
    """The best model that is here; else the best there is, fetched after a question.

    Args:
        command: that is to run it, for hints.
        wish: what it has to be good for.
        catalogue: all models.
        machine: where it is to run, with what is free of it now.
        console: asks.

    Raises:
        NotFoundError: none is here, and nobody can be asked.
        HermesError: the answer was no.
    """
    hint = f"try the one that ships with hermes: hermes {command} demo"
    fitting = recommendations(catalogue, machine, wish)
    here = next(
        (one for one in fitting if one.variant.quantization in installed_quantizations(one.variant.model)), None
    )
    if here:
        console.note(f"{here.variant.name}, the best that is installed (hermes recommend)")
        return here
    if not fitting:
        raise NotFoundError("no model was named, and no Hermes model fits this machine.", hint=hint)
    _fetch(fitting[0], hint, console)
    return fitting[0]


def _fetch(best: Recommendation, hint: str, console: Console) -> None:
    """Download it, after a question.

    Raises:
        NotFoundError: nobody can be asked.
        HermesError: the answer was no.
    """
    from hermes_cli.commands.pull import command as pull  # noqa: PLC0415 - the client side of HTTP

    name, size = best.variant.name, gigabytes(best.variant.bytes)
    question = f"No model is here. Fetch {name}, {size}, the best that fits? [Y/n] "
    answer = agreed(question, console, usually=True) if console.voice is Voice.HUMAN else None
    if answer is None:
        raise NotFoundError(
            "no model was named, and no Hermes model that fits is here.", hint=f"hermes pull {name} ({size}). {hint}"
        )
    if not answer:
        raise HermesError("nothing was fetched.", hint=hint)
    pull([name], yes=True)

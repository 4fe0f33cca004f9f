"""`hermes pull`: fetch models from the Hub, and the model of `chat` and `serve` where none is named."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes_cli.catalog.models import Catalogue
from hermes_cli.commands.completing import catalogue_models, quantizations
from hermes_cli.commands.options import YesOption, argument, bytes_per_second, confirm_or_exit, with_console
from hermes_cli.commands.pull_progress import show_progress
from hermes_cli.console import Console, Voice
from hermes_cli.errors import HermesError, NetworkError, NotFoundError, UsageError
from hermes_cli.store.progress import DownloadProgress
from hermes_cli.units import gigabytes, memory_size

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.models.pull_target import PullTarget
    from hermes_cli.models.resolve import ModelRequest
    from hermes_cli.planning.recommend import RecommendOptions
    from hermes_cli.store.download import FileState, SpaceNeeded
    from hermes_cli.store.hub import RemoteFile
    from hermes_cli.store.inventory import InstalledModel
    from hermes_cli.store.transfer import RetryPolicy


MOST_LISTED = 12  # files of weights that are shown one by one


@with_console
def command(
    console: Console,
    names: Annotated[
        list[str] | None,
        argument(
            "[NAME]...",
            "Models of the catalogue, or repositories on the Hub. None: what `hermes recommend` picks.",
            catalogue_models,
        ),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option("--quant", help="Quantization, if the name has none: Q4_K_M.", autocompletion=quantizations),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    tokenizer_only: Annotated[
        bool,
        typer.Option("--tokenizer-only", help="Of weights for vLLM and SGLang all but the weights: for --engine-url."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the files that would be fetched.")] = False,
    verify: Annotated[bool, typer.Option(help="Check the SHA-256 of every file.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Try even if the disk seems to be too small.")] = False,
    limit_rate: Annotated[
        str | None, typer.Option(metavar="MB/S", help="Fetch at most so many MB/s: 5, 500k, 2.5M.", show_default=False)
    ] = None,
    yes: YesOption = False,
) -> None:
    """Fetch models, into the cache that all tools of Hugging Face share.

    After an interruption the same command goes on where it stopped. A file gets its name only once its SHA-256 is
    right. Names with @ are weights for vLLM and SGLang: config, tokenizer, templates, index and all shards.

        hermes pull

        hermes pull hermes-3:8b:Q4_K_M

        hermes pull somebody/Some-GGUF --quant Q5_K_M

        hermes pull hermes-4:70b@fp8
    """
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.hardware.probe import probe
    from hermes_cli.paths import models_dir, readable
    from hermes_cli.store.download import file_states, space_needed
    from hermes_cli.store.transfer import RetryPolicy

    if (quant or revision or tokenizer_only) and not names:
        hint = "for example: hermes pull hermes-3:8b --quant Q4_K_M"
        raise UsageError("--quant, --revision and --tokenizer-only need a name.", hint=hint)
    policy = RetryPolicy(max_speed=None if limit_rate is None else bytes_per_second(limit_rate))
    readable(models_dir())
    catalogue, machine = load_catalogue(), probe()
    wanted = names or [_recommended(catalogue, machine)]
    targets, files, here = _ask_hub(wanted, catalogue, machine, quant, revision, console, tokenizer_only=tokenizer_only)
    states, space = file_states(files), space_needed(files)
    # The plan is the data of a dry run; before a download it is a note.
    write = (lambda line: console.text(f"{line}\n")) if dry_run else console.note
    if targets:
        _show_plan(targets, files, states, space, write)
    for target in targets:
        _show_fit(target, machine, write, console)
    for found in here:
        _show_here(found, write)
        states += found.states()
    if dry_run:
        console.document(_document("plan", targets, here, states, []), indent=None)
        return
    if not force:
        space.check()
    if not names and not yes and space.needed:
        size = gigabytes(space.needed)
        confirm_or_exit(
            console,
            f"Fetch {size}?",
            unasked=f"{size} would be fetched, and there is no terminal to ask on.",
            hint="to go ahead without the question: hermes pull --yes",
            refused="nothing was fetched; another model: hermes pull NAME, all of them: hermes list",
            default=True,
        )
    with _tell_what_is_kept(files, console), show_progress(states, console) as on_progress:
        paths = _fetch(files, here, on_progress, policy, verify=verify, force=force)
    console.document(_document("done", targets, here, states, paths), indent=None)
    console.text("".join(f"{path}\n" for path in _shown(targets, here, paths)))
    if not tokenizer_only:
        _show_next(
            targets, here, {(file.repo, file.path): path for file, path in zip(files, paths, strict=False)}, console
        )


def _show_next(
    targets: Sequence[PullTarget],
    here: Sequence[FoundHere],
    paths: Mapping[tuple[str, str], Path],
    console: Console,
) -> None:
    """Name the command that uses what was fetched; `paths` by repository and path in it."""
    for target in targets:
        if target.weights:
            console.note(f"next: hermes serve {shlex.quote(target.name)} --engine vllm (hermes plan says how)")
    ready = {target.name: paths.get((target.repo, target.files[0])) for target in targets if target.runs}
    ready |= {found.model.name: found.model.path for found in here if not found.model.is_weights}
    for name, path in ready.items():
        console.note(f"next: hermes {'serve' if path and _embeds(path) else 'chat'} {shlex.quote(name)}")


def _shown(targets: Sequence[PullTarget], here: Sequence[FoundHere], paths: Sequence[Path]) -> list[Path]:
    """Return the paths to show: of weights for vLLM and SGLang the folder, of all others each file."""
    from hermes_cli.store.layout import repo_folder

    repos = [target.repo for target in targets if target.weights]
    repos += [found.model.repo for found in here if found.model.is_weights and found.model.repo]
    shown: dict[Path, None] = {}
    for path in paths:
        folder = next((folder for folder in map(repo_folder, repos) if folder in path.parents), None)
        shown[folder.joinpath(*path.relative_to(folder).parts[:2]) if folder else path] = None  # snapshots/REVISION
    return list(shown)


def _embeds(path: Path) -> bool:
    """Return whether a file is a model for embeddings."""
    from hermes_cli.gguf.header import read_header
    from hermes_cli.gguf.shards import pooling_of

    with suppress(HermesError, OSError):  # it is not a GGUF file: whoever opens it says so
        return pooling_of(read_header(path)) is not None
    return False


def _recommended(catalogue: Catalogue, machine: Machine) -> str:
    """Return the name of what `hermes recommend` picks; raise DoesNotFitError, which says what would, if none fits."""
    from hermes_cli.planning.recommend import RecommendOptions, recommendations
    from hermes_cli.store.benchmarks import speed_ratios

    fitting = recommendations(catalogue, machine, RecommendOptions(measured=speed_ratios(machine)))
    if not fitting:
        from hermes_cli.commands.run_recommend import nothing_fits

        raise nothing_fits(catalogue, machine, RecommendOptions())
    return fitting[0].variant.name


@contextmanager
def _tell_what_is_kept(files: Sequence[RemoteFile], console: Console) -> Iterator[None]:
    """Say after Ctrl-C how much of the files is here, and that the same command goes on."""
    from hermes_cli.store.download import file_states

    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and (kept := sum(state.here for state in file_states(files))):
            console.warn(f"{gigabytes(kept)} are kept; the same command goes on from there")
        raise


def _fetch(
    files: Sequence[RemoteFile],
    here: Sequence[FoundHere],
    on_progress: Callable[[DownloadProgress], None],
    policy: RetryPolicy,
    *,
    verify: bool,
    force: bool,
) -> list[Path]:
    """Fetch files, hash those models that are here, and return the paths of all."""
    from hermes_cli.store.download import fetch
    from hermes_cli.store.offline import check_hashes

    paths = fetch(files, on_progress, verify=verify, force=force, policy=policy) if files else []
    for found in here:
        if verify:
            check_hashes(found.model, on_progress)
        paths += [file.path for file in found.model.files]
    return paths


@dataclass(frozen=True)
class FoundHere:
    """A model that is complete on this disk, and why the Hub could not be asked about it."""

    model: InstalledModel
    reason: str

    def states(self) -> list[FileState]:
        """Return its files as the Hub's are shown."""
        from hermes_cli.store.download import FileState

        return [
            FileState(file.repo_path, file.path, file.bytes or 0, file.bytes or 0, True, self.model.state == "verified")  # noqa: FBT003 - complete
            for file in self.model.files
        ]


def _ask_hub(
    names: Sequence[str],
    catalogue: Catalogue,
    machine: Machine,
    quant: str | None,
    revision: str | None,
    console: Console,
    *,
    tokenizer_only: bool,
) -> tuple[list[PullTarget], list[RemoteFile], list[FoundHere]]:
    """Return the targets of all names, their files on the Hub, and models that are here if it cannot be asked."""
    from hermes_cli.catalog.names import ModelNames
    from hermes_cli.models.pull_target import pull_target
    from hermes_cli.planning.recommend import room_for_files
    from hermes_cli.store.download import known_content, resolve
    from hermes_cli.store.hub import endpoint
    from hermes_cli.store.offline import find_complete

    targets: list[PullTarget] = []
    files: dict[RemoteFile, None] = {}
    here = []
    parser = ModelNames(catalogue)
    for reference in map(parser.parse, names):
        target = None
        try:
            with console.working("asking the Hub"):
                target = pull_target(reference, catalogue, machine, quant, revision, tokenizer_only=tokenizer_only)
                listed = [
                    file if file.etag else known_content(file, catalogue)
                    for file in resolve(target.repo, target.revision, target.files)
                ]
            files |= dict.fromkeys(listed)
            for file in listed:
                if not file.etag:
                    console.warn(f"{endpoint()} publishes no hash of {file.path}, so its content cannot be checked")
            targets.append(target)
        except NetworkError as error:
            model = find_complete(reference, quant, revision, catalogue, room_for_files(machine))
            if model is None and target and target.variant:
                known = f"by the catalogue it is {target.name}, {gigabytes(target.variant.bytes)} from {target.repo}"
                raise NetworkError(error.message, hint=f"{error.hint.rstrip('.')}; {known}.") from None
            if model is None:
                raise
            here.append(FoundHere(model, error.message))
    return targets, list(files), here


def _show_here(found: FoundHere, write: Callable[[str], None]) -> None:
    """Write the files of a model that is here, and what could not be checked."""
    model = found.model
    write(f"{model.name}{f' from {model.repo} at {model.revisions[0][:12]}' if model.repo else ', imported'}")
    for file in model.files:
        write(f"  {file.repo_path}  {gigabytes(file.bytes)}  here already")
        if file.sha256 is file.git_hash is None:
            write("  no published hash of it is known here, so its content cannot be checked")
    write(f"not checked whether there is a newer revision: {found.reason}")


def _here(size: int) -> str:
    return f"  {gigabytes(size)} here already" if size else ""


def _show_plan(
    targets: Sequence[PullTarget],
    files: Sequence[RemoteFile],
    states: Sequence[FileState],
    space: SpaceNeeded,
    write: Callable[[str], None],
) -> None:
    """Write the files, their repositories, the bytes that are here already, and the space that is needed and free."""
    for target in targets:
        revision = files[0].revision if len(targets) == 1 and files else ""
        write(f"{target.name} from {target.repo}{f' at {revision[:12]}' if revision else ''}")
        for note in target.notes:
            write(f"  {note}")
    for old, new in {(file.repo, file.current_repo) for file in files if file.renamed}:
        write(f"  {old} is called {new} today")
    of_weights = {file for target in targets if target.weights for file in target.files}
    shards = [state for state in states if state.file in of_weights]
    if len(shards) > MOST_LISTED:  # 405B has 191 shards
        here = sum(state.here for state in shards)
        write(f"  {len(shards)} files  {gigabytes(sum(state.size for state in shards))}{_here(here)}")
    for state in states:
        if state not in shards or len(shards) <= MOST_LISTED:
            here_already = "  here already" if state.complete else _here(state.here)
            write(f"  {state.file}  {gigabytes(state.size)}{here_already}")
    free = "unknown" if space.free is None else gigabytes(space.free)
    write(f"{gigabytes(space.needed)} to fetch into {space.folder}, {free} free there")


def _show_fit(target: PullTarget, machine: Machine, write: Callable[[str], None], console: Console) -> None:
    """Write before the download whether the model can be loaded on this machine."""
    if target.variant is None or not target.variant.computed_bytes:
        return
    from hermes_cli.models.pull_target import fit_for_chat

    settings, placement = fit_for_chat(target.variant, machine)
    if placement.fits:
        need = memory_size(placement.total.total)
        write(f"it fits this machine with {settings.context:,} tokens of context: {need} of memory (computed)")
        return
    short = max(share.part.total - share.room for share in placement.shares)
    console.warn(
        f"{target.name} does not fit this machine: {memory_size(short)} more memory is needed "
        f"for {settings.context:,} tokens of context (computed). What fits: hermes recommend"
    )


def _document(
    event: str,
    targets: Sequence[PullTarget],
    here: Sequence[FoundHere],
    states: Sequence[FileState],
    paths: Sequence[Path],
) -> dict[str, Any]:
    """Return the last line of --json."""
    return {
        "event": event,
        "models": [
            *({"name": target.name, "repository": target.repo} for target in targets),
            *({"name": found.model.name, "repository": found.model.repo} for found in here),
        ],
        "hub_error": here[0].reason if here else None,
        "files": [
            {
                "file": state.file,
                "path": str(state.path),
                "bytes": state.size,
                "bytes_here": state.here,
                "verified": state.verified,
            }
            for state in states
        ],
        "paths": [str(path) for path in paths],
    }


def default_model(
    program: str,
    request: ModelRequest,
    options: RecommendOptions,
    catalogue: Catalogue,
    machine: Machine,
    console: Console,
) -> ModelRequest:
    """Return a request for the best model where none was named: one that is installed, else one that is fetched first.

    The KV cache and YaRN that were counted on are taken where the user says nothing else. `program` is the command that
    is to run the model, for hints; the name in `request` is not looked at.

    Raises:
        NotFoundError: none fits, or none is installed and there is no terminal to ask on.
        typer.Exit: the answer was no, which is no error.
    """
    from hermes_cli.planning.recommend import recommendations
    from hermes_cli.store.benchmarks import speed_ratios
    from hermes_cli.store.library import installed_quantizations

    demo_hint = f"try the one that ships with hermes: hermes {program} demo"
    fitting = recommendations(catalogue, machine, replace(options, measured=speed_ratios(machine)))
    installed = (best for best in fitting if best.variant.quantization in installed_quantizations(best.variant.model))
    if best := next(installed, None):
        console.note(f"{best.variant.name}, the best that is installed (hermes recommend)")
    elif fitting:
        best = fitting[0]
        name, size = best.variant.name, gigabytes(best.variant.bytes)
        question = f"No model is here. Fetch {name}, {size}, the best that fits?"
        answer = console.confirm(question, default=True) if console.voice is Voice.HUMAN else None
        if answer is None:
            problem = "no model was named, and no Hermes model that fits is here."
            raise NotFoundError(problem, hint=f"fetch the best, {size}: hermes pull {name}, or {demo_hint}")
        if not answer:
            console.note(f"nothing was fetched; {demo_hint}")
            raise typer.Exit
        command([name], yes=True)
    else:
        raise NotFoundError("no model was named, and no Hermes model fits this machine.", hint=demo_hint)
    overrides = request.overrides
    if best.settings.k_type != "f16" and overrides.kv_type is None:
        overrides = replace(overrides, kv_type=best.settings.k_type)
    return replace(request, name=best.variant.name, overrides=overrides, yarn=request.yarn or best.by_yarn)

"""Commands about what was said: again, back, otherwise, in short, and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.chat.clipboard import copy
from hermes_cli.chat.compaction import covered, summarize
from hermes_cli.chat.composition import composition
from hermes_cli.chat.slash.command import SlashCommand, nothing_more
from hermes_cli.chat.view import speed
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_cli.chat.conversation import TurnUsage
    from hermes_cli.chat.repl_context import ReplContext

NOT_KNOWN = "not known"
_BAR = 30  # characters that stand for a whole context
_NOTHING = HermesError("nothing was said yet.", hint="type a question.")


def _retry(scene: ReplContext, rest: str) -> None:
    nothing_more(rest, "/retry")
    scene.talk.again()


def _undo(scene: ReplContext, rest: str) -> None:
    """Take back the user's last message, with what followed it; the message may be sent again."""
    nothing_more(rest, "/undo")
    text = _take_back(scene)
    scene.console.note(f"taken back: {_short(text)}")


def _edit(scene: ReplContext, rest: str) -> None:
    """Take the last message back into the next line."""
    nothing_more(rest, "/edit")
    scene.draft = _take_back(scene)


def _take_back(scene: ReplContext) -> str:
    at = scene.conversation.last_question
    if at is None:
        raise _NOTHING
    text = scene.conversation.said[at].message.content or ""
    scene.conversation.back_to(at)
    return text


def _compact(scene: ReplContext, rest: str) -> None:
    """Sum up older turns, or take the last summary back."""
    if rest == "undo":
        if not scene.conversation.expand():
            raise UsageError("there is no summary to take back.", hint="/compact writes one.")
        scene.console.note("the model reads again what the summary stood for")
        return
    nothing_more(rest, "/compact")
    count = covered(scene.conversation)
    with scene.console.working(f"summing up {count:,} messages"):
        summary = scene.loop.run(summarize(scene.partner, scene.conversation, count))
    scene.conversation.compact(summary, count)
    scene.show(summary)
    scene.console.note(
        f"stands for the first {count:,} messages from now on; nothing is lost: /compact undo takes it back"
    )


def _context(scene: ReplContext, rest: str) -> None:
    nothing_more(rest, "/context")
    made = scene.loop.run(composition(scene.partner, scene.conversation, scene.talk.schemas))
    rows = [(part.name, part.tokens) for part in made.parts]
    if made.room:
        rows.append(("free", made.room - made.total))
    whole = made.room or max(made.total, 1)
    scene.console.table(
        ["part", "tokens", "share", ""],
        [
            [name, f"{tokens:,}", f"{tokens / whole:.0%}", "█" * round(_BAR * max(tokens, 0) / whole)]
            for name, tokens in rows
        ],
        right=["tokens", "share"],
    )
    of = f" of {made.room:,}" if made.room else ""
    scene.console.note(f"{made.total:,}{of} tokens, counted by {scene.partner.name}'s own tokenizer")


def _stats(scene: ReplContext, rest: str) -> None:
    nothing_more(rest, "/stats")
    spent = [one.spent for one in scene.conversation.said if one.spent]
    if not spent:
        raise _NOTHING
    prompt, cached = _sum(spent, "prompt_tokens"), _sum(spent, "cached_tokens")
    written, thought = _sum(spent, "completion_tokens"), _sum(spent, "reasoning_tokens")
    reading, writing = _sum(spent, "prompt_seconds"), _sum(spent, "completion_seconds")
    rows = [
        ["messages", f"{len(scene.conversation.said):,}"],
        ["turns of the model", f"{len(spent):,}"],
        ["tokens read", f"{prompt:,.0f}, {cached:,.0f} of them from the cache"],
        ["tokens written", f"{written:,.0f}, {thought:,.0f} of them reasoning"],
        ["prefill, measured", speed(prompt - cached, reading) or NOT_KNOWN],
        ["decode, measured", speed(written, writing) or NOT_KNOWN],
    ]
    scene.console.table(["", ""], rows)


def _copy(scene: ReplContext, rest: str) -> None:
    nothing_more(rest, "/copy")
    said = [one.message for one in scene.conversation.said if one.message.role == "assistant" and one.message.content]
    if not said:
        raise _NOTHING
    text = said[-1].content or ""
    scene.console.note(f"copied {len(text):,} characters {copy(text)}")


def _sum(spent: Iterable[TurnUsage], name: str) -> float:
    return float(sum(getattr(one, name) for one in spent))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"  # noqa: PLR2004 - of a line of 80


COMMANDS = (
    SlashCommand("/retry", "", "answer the last message again", _retry),
    SlashCommand("/undo", "", "take the last message back, with its answer", _undo),
    SlashCommand("/edit", "", "take the last message back into the line you type", _edit),
    SlashCommand("/context", "", "what fills the context", _context),
    SlashCommand("/compact", "[undo]", "have older turns told to the model as a summary, or take that back", _compact),
    SlashCommand("/stats", "", "tokens and speeds of this conversation", _stats),
    SlashCommand("/copy", "", "copy the last answer", _copy),
)

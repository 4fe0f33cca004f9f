"""Messages in, events out: prompting and an engine together. Chat and server stand on this.

llama.cpp is not here but behind the engine's protocol, in another process or, in tests, nowhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hermes_cli.engine.protocol import Done, Engine, ModelInfo, TextEvent, TokenLogprobs
from hermes_cli.engine.request import PARAMETERS, GenerationRequest, ReasoningOptions, SamplingOptions, encode
from hermes_cli.errors import ContextFullError, UsageError
from hermes_cli.prompting.call_block import END_CALL
from hermes_cli.prompting.choose import FileTemplates, TemplateChoice, choose
from hermes_cli.prompting.compose import PromptInput, PromptOptions, RawTurnCache
from hermes_cli.prompting.json_reader import respaced
from hermes_cli.prompting.markers import SpecialTexts
from hermes_cli.prompting.messages import (
    CallArguments,
    CallFinished,
    CallStarted,
    Content,
    Message,
    Reasoning,
    ToolCall,
)
from hermes_cli.prompting.messages import Event as Parsed
from hermes_cli.prompting.parse import Parser
from hermes_cli.prompting.render import Prompt
from hermes_cli.prompting.turn_grammar import (
    TAGS,
    THOUGHTS,
    AnswerGrammar,
    SpecialTokens,
    Thinking,
    ToolGrammar,
    turn_grammar,
)

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel as KnownModel


NO_GRAMMARS = "the engine of this model takes no grammars: calls are read as the model writes them (docs/engines.md)."
MAX_ROUNDS = 10  # of tool calls that hermes runs before an answer has to come, in the terminal and in the server
THINK_END = "I have thought long enough, and answer now."


T = TypeVar("T")

COUNTED = 1 << 20  # characters of a prompt whose tokens are counted, even if it is too long
LONGEST_TOKEN = 1024  # bytes; those of vocabularies have 128 at most, or a few more


@dataclass(frozen=True)
class LogprobsEvent:
    """The tokens behind the events that follow, with their log-probabilities, if a turn asks for them."""

    logprobs: tuple[TokenLogprobs, ...]


Event = Parsed | LogprobsEvent | Done


@dataclass(frozen=True)
class Constraints:
    """Constraints of a turn: the answer, and the calls that are possible (prompting/structured_output.py)."""

    answer: AnswerGrammar | None = None
    calls: ToolGrammar | None = None


@dataclass(frozen=True)
class TurnRequest:
    """A conversation, and how the model is to go on."""

    messages: Sequence[Message]  # all of it, the system prompt first
    tools: Sequence[dict[str, Any]] = ()  # on offer, in OpenAI's shape
    # whether to think, and what the answer is told to look like
    options: PromptOptions = field(default_factory=PromptOptions)
    constraints: Constraints = field(default_factory=Constraints)  # what it has to look like
    sampling: SamplingOptions | None = None  # how tokens are chosen; None is as the model recommends
    max_tokens: int | None = None  # the most to generate; None is as many as the context length allows
    # the most tokens of reasoning; then it is ended, and the answer follows. None for any
    think_budget: int | None = None
    think_end: str = THINK_END  # the sentence that ends it then; empty for none
    stops: tuple[str, ...] = ()  # texts that end the turn, beside those of the prompt format
    top_logprobs: int | None = None  # how many alternatives to tell with each token; None tells no log-probabilities
    client: str = ""  # name of the client; engines are fair among clients
    shift: bool = False  # where the context length ends, go on without the older half of the conversation
    speculate: bool = True  # speculative decoding may be used; the text is the same
    # the last message is a turn of the model that it goes on with, in its reasoning or its content
    continues: bool = False
    calls_without_tools: bool = True  # what looks like a call is one, though no tools are on offer


class ChatModel:
    """A model, ready to answer any number of conversations at once. Its engine belongs to the caller."""

    def __init__(
        self,
        engine: Engine,  # continues prompts
        # its description of the model; made with `EngineOptions(tags=TAGS)`, so that grammars know the tags
        loaded: ModelInfo,
        *,
        known: KnownModel | None = None,  # the model in the catalogue, if it is there
        # `file`, `model` or a path, to override the choice of the prompt format (prompting/choose.py)
        template: str | None = None,
    ) -> None:
        """Choose the prompt format, and find out its abilities; that takes seconds where a file's template is slow.

        Raise UsageError if the template that is asked for is not there or broken.
        """
        self.engine, self.loaded = engine, loaded
        single = {*loaded.control, *loaded.added, *loaded.tags}
        file = FileTemplates(loaded.templates, single.__contains__, loaded.bos, loaded.eos)
        self.choice: TemplateChoice = choose(file, known, template)
        self.takes_tools, self.reasons = self.choice.format.takes_tools, self.choice.format.reasons
        self._known = known
        self._raw_turns = RawTurnCache()

    @classmethod
    async def open(cls, engine: Engine, *, known: KnownModel | None = None, template: str | None = None) -> Self:
        """Have the engine load its model, and do as the constructor does; it raises what either raises."""
        import asyncio  # noqa: PLC0415 - commands that never generate import this module, too

        loaded = await engine.load()
        return await asyncio.to_thread(cls, engine, loaded, known=known, template=template)  # it tries the template

    async def answer(self, turn: TurnRequest) -> AsyncGenerator[Event, None]:
        """Generate the next assistant turn.

        Yields content, reasoning and calls as they become certain, and `Done` with counts and times at the end; its
        reason is "tool_calls" if the turn ended with calls. Closing it cancels the request.

        Raises:
            ContextFullError: the messages alone fill the context length.
            UsageError: tools or reasoning are asked of a model that has none, its template refuses the messages, a
                value makes no sense, or the constraints are too much for a grammar.
            HermesError: the chat template or the engine failed, or the constraints cannot be met.
        """
        if not self.loaded.grammars:
            turn = replace(turn, constraints=_without_grammar(turn.constraints))
        prompt = await self.prompt(turn)
        reader = _Reader(turn, prompt)
        for parsed in reader.begun:
            yield parsed
        request = await self._request(turn, prompt)
        async with aclosing(self.engine.generate(request)) as stream:
            async for event in stream:
                if isinstance(event, TextEvent):
                    if event.logprobs:
                        yield LogprobsEvent(event.logprobs)
                    for parsed in reader.read(event):
                        yield parsed
                    continue
                # A turn that is cancelled is not remembered: nobody saw all that the model wrote in it.
                rest, done = reader.finish(event)
                reader.remember(self._raw_turns)
                for parsed in rest:
                    yield parsed
                yield done

    async def prompt(self, turn: TurnRequest) -> Prompt:
        """Return the prompt; nothing in the messages is a control token once its pieces are tokenized.

        Raises:
            UsageError: tools or reasoning are asked of a model that has none, or its template refuses the messages.
            HermesError: the chat template failed.
        """
        messages = turn.messages[:-1] if turn.continues else turn.messages
        conversation = PromptInput(messages, turn.tools, turn.options, self._raw_turns, self._specials)
        size = sum(len(message.content or "") + len(message.reasoning or "") for message in turn.messages)
        self._check_length(sum(len(message.content or "") for message in messages if message.role != "assistant"))

        def render() -> Prompt:
            prompt = self.choice.format.render(conversation)
            return prompt.continued(turn.messages[-1], self._specials) if turn.continues else prompt

        # In a thread: long conversations and the templates of files take their time.
        return await _in_turn(turn.client, render, size)

    async def count(self, turn: TurnRequest) -> int:
        """Return the number of tokens in a turn's prompt, without the BOS token that the engine puts before it."""
        return await self._count(turn.client, (await self.prompt(turn)).text)

    def recommended_sampling(self) -> SamplingOptions:
        """Return the options of the file (`general.sampling.*`), else the catalogue's, else llama.cpp's defaults."""
        options = SamplingOptions()
        recommended = self._known.sampling if self._known else None
        if recommended and recommended != "unknown":
            names = ("top_p", "top_k", "repeat_penalty")
            stated: dict[str, Any] = {name: getattr(recommended, name) for name in names if getattr(recommended, name)}
            options = replace(options, temperature=recommended.temperature, **stated)
        for name, parameter in PARAMETERS.items():
            kind = type(getattr(options, name))
            with suppress(KeyError, ValueError, UsageError):  # a file may say anything; nonsense recommends nothing
                options = replace(options, **{name: kind(self.loaded.sampling[parameter.gguf])})
        return options

    @cached_property
    def _specials(self) -> SpecialTexts:
        return SpecialTexts(self.loaded.control, self.loaded.added, self.choice.format.source)

    async def _request(self, turn: TurnRequest, prompt: Prompt) -> GenerationRequest:
        def grammar(thinking: Thinking) -> str | None:
            tokens = SpecialTokens(self.loaded.tags, self.loaded.others)
            return turn_grammar(turn.constraints.answer, turn.constraints.calls, thinking=thinking, tokens=tokens)

        return GenerationRequest(
            await self._pieces(turn.client, prompt.text),
            sampling=turn.sampling or self.recommended_sampling(),
            max_tokens=turn.max_tokens,
            stops=tuple(dict.fromkeys((*prompt.stop, *turn.stops))),
            grammar=grammar(
                "inside" if prompt.inside_reasoning else "may" if prompt.thinks and not prompt.begun else "no"
            ),
            reasoning=ReasoningOptions(
                turn.think_budget,
                prompt.inside_reasoning,
                THOUGHTS,
                line_ends=(END_CALL,),
                end=turn.think_end,
                grammar=None if turn.think_budget is None else grammar("ended"),
            ),
            grammar_prefix=(prompt.begun_part, respaced(prompt.begun_part)) if prompt.begun_part else (),
            top_logprobs=turn.top_logprobs,
            client=turn.client,
            shift=turn.shift,
            keep=await self._kept(turn, prompt) if turn.shift else 0,
            speculate=turn.speculate,
        )

    async def _kept(self, turn: TurnRequest, prompt: Prompt) -> int:
        """Return the number of tokens before the first message that is no system prompt: a shift leaves them."""
        system = [message for message in turn.messages[:1] if message.role == "system"]
        other = await self.prompt(replace(turn, messages=[*system, Message("user", "\ufffd")], continues=False))
        pairs = enumerate(zip(prompt.text, other.text, strict=False))
        same = next((at for at, (character, another) in pairs if character != another), 0)
        return await self._count(turn.client, prompt.text[:same])

    async def _pieces(self, client: str, text: str) -> tuple[str, ...]:
        """Return a prompt in pieces that can be tokenized; raise ContextFullError if there are more than tokens fit."""
        pieces = await _in_turn(client, lambda: self._specials.cut(text), len(text))
        self._check_tokens(len(pieces))
        return pieces

    def _check_length(self, characters: int) -> None:
        """Raise ContextFullError if text is longer than all tokens that fit can be."""
        if characters > COUNTED:  # of shorter ones the tokens are counted
            self._check_tokens(characters // LONGEST_TOKEN)

    def _check_tokens(self, least: int) -> None:
        if least > self.loaded.context:
            raise ContextFullError(
                f"the prompt has over {least:,} tokens, the context length is {self.loaded.context:,} tokens.",
                hint="shorten the prompt; --context gives a longer context, if the model was trained for one.",
                prompt_tokens=least,
                context_length=self.loaded.context,
            )

    async def _count(self, client: str, text: str) -> int:
        pieces = await self._pieces(client, text)
        behind = pieces[1:]
        texts = {*pieces, *("\n" + piece for piece in behind), *("\n" for _ in behind)}  # what `encode` may ask for
        tokens = {text: await self.engine.tokenize(text) for text in texts}
        return len(encode(pieces, tokens.__getitem__))


async def _in_turn(client: str, work: Callable[[], T], size: int) -> T:
    from hermes_cli.threads import in_turn  # noqa: PLC0415 - commands that never generate import this module, too

    return await in_turn(client, work, size=size)


def _without_grammar(constraints: Constraints) -> Constraints:
    """Return the constraints for an engine without grammars: none. Calls are read as the model writes them."""
    calls = constraints.calls
    wanted = (
        "to a schema"
        if constraints.answer
        else "to a call"
        if calls and calls.required
        else "to no call"
        if calls and not calls.rules
        else "to one call at most"
        if calls and not calls.parallel
        else ""
    )
    if wanted:
        raise UsageError(
            f"the engine of this model cannot hold an answer {wanted}: it takes no grammars.",
            hint="leave that out, or run the model in this program; docs/engines.md tells which engine can.",
        )
    return Constraints()


class _Reader:
    """Makes events of the text of a turn, and keeps the whole turn."""

    def __init__(self, turn: TurnRequest, prompt: Prompt) -> None:
        names = [str(tool["function"]["name"]) for tool in turn.tools]
        self._parser = Parser(
            tools=names or (None if turn.calls_without_tools else ()),
            prompt_opens_think=prompt.inside_reasoning,
            early=turn.constraints.calls is not None,
        )
        self._stops = turn.stops
        self._text = [prompt.opening]
        self._content: list[str] = [(turn.messages[-1].content or "")] if turn.continues else []
        self._calls: list[ToolCall] = []
        self._whole = True  # no call was given out that was cut off later
        self.begun = (
            self._noted(self._parser.begin(prompt.begun_part)) if prompt.begun else []
        )  # of what the client began

    def read(self, piece: TextEvent) -> list[Parsed]:
        """Return the events that a piece makes certain."""
        self._text.append(piece.text)
        self._parser.reasoning_cut = piece.reasoning_cut
        return self._noted(self._parser.feed(piece.text))

    def finish(self, done: Done) -> tuple[list[Parsed], Done]:
        """Return the remaining events, and the end with what the parser knows of it."""
        rest = self._noted(self._parser.finish())
        return rest, replace(
            done,
            reason="tool_calls" if self._calls and done.reason == "stop" else done.reason,
            stop=done.stop if done.stop in self._stops else None,
        )

    def remember(self, cache: RawTurnCache) -> None:
        """Keep the turn as the model wrote it, with the tag that the prompt opened."""
        if self._whole:
            message = Message("assistant", "".join(self._content) or None, tuple(self._calls))
            cache.remember(message, "".join(self._text))

    def _noted(self, events: list[Parsed]) -> list[Parsed]:
        for event in events:
            if isinstance(event, Content):
                self._content.append(event.text)
            elif isinstance(event, CallFinished):
                self._whole = self._whole and event.complete
                self._calls += [event.call] if event.complete else []
        return events


__all__ = [
    "NO_GRAMMARS",
    "TAGS",
    "THINK_END",
    "CallArguments",
    "CallFinished",
    "CallStarted",
    "ChatModel",
    "Constraints",
    "Content",
    "Done",
    "Event",
    "LogprobsEvent",
    "Message",
    "PromptOptions",
    "Reasoning",
    "SamplingOptions",
    "ToolCall",
    "TurnRequest",
]

"""Bodies of requests: what OpenAI documents, and what clients of llama.cpp's server, vLLM and Ollama add.

Null is the same as a field that is left out. Unknown fields are ignored, since clients are made for several servers;
those that would change the result and are not supported are refused by name (REFUSED). Messages, tools and schemas are
taken as they are: prompting checks them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from hermes_cli.engine.request import MAX_STOP_CHARACTERS, MAX_STOPS, PARAMETERS

MOST_CHOICES = 16  # of one request
MOST_MESSAGES = 10_000
MOST_PROMPTS = 64  # in one request for completions
MOST_TEXTS = 128  # of all its prompts together
MOST_STATED_STOPS = MAX_STOPS // 2  # the prompt format has some, too
MOST_BIAS = 100  # either way, as OpenAI
MOST_TOOLS = 10_000  # on offer in one request
MOST_TOP_LOGPROBS = 20  # as OpenAI
MOST_METADATA = 16  # pairs, as OpenAI has it; so are the lengths of their texts
_LONGEST_NUMBER = 40  # characters
_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_STOP = {**_TEXT, "maxLength": MAX_STOP_CHARACTERS}
_ROLES = ["system", "developer", "user", "assistant", "tool", "function"]
_PARTS = ["text", "input_text", "output_text", "refusal"]


def _array(items: dict[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": most, "items": items}


def messages_schema(roles: list[str], parts: list[str], *required: str) -> WithJsonSchema:
    """Describe messages for the OpenAPI document, by the roles that they may have and the usual types of parts."""
    kind = {**_TEXT, "minLength": 1, "examples": parts}
    part = {"type": "object", "properties": {"type": kind, "text": _TEXT}, "required": ["type"]}
    content = [_TEXT, {"type": "array", "items": part}, *([] if "content" in required else [{"type": "null"}])]
    properties = {"role": {"enum": roles}, "content": {"anyOf": content}}
    message = {"type": "object", "properties": properties, "required": ["role", *required]}
    return WithJsonSchema(_array(message, MOST_MESSAGES))


def _number(value: object) -> object:
    """Take the text of a number, as vLLM does; refuse what else pydantic would convert to one."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER and re.fullmatch(r"\s*-?[0-9.]+(e-?[0-9]+)?\s*", value):
        return value.strip()
    if isinstance(value, bool | str | bytes):
        raise ValueError("must be a number")  # noqa: TRY004 - what pydantic takes for "this is wrong"
    return value


def _texts(value: object) -> object:
    """Make a list of one text, and leave empty texts and nulls out."""
    listed = [value] if isinstance(value, str) else value
    return [text for text in listed if text not in ("", None)] if isinstance(listed, list) else value


def _pairs(value: object) -> object:
    """Make an object of the pairs that llama.cpp's server takes, in which `false` forbids a token."""
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):  # noqa: PLR2004 - a pair
        return _first_wrong(value)
    return _first_wrong({str(token): -100 if bias is False else bias for token, bias in value})


def _first_wrong(value: object) -> object:
    """Return an object whose values are numbers; of others the first one that is none: each would be an error."""
    if not isinstance(value, dict):
        return value
    wrong = [key for key, item in value.items() if type(item) not in (int, float) or abs(item) > MOST_BIAS]
    return {wrong[0]: value[wrong[0]]} if wrong else value


def _kinds(described: str, *kinds: type) -> AfterValidator:
    """Check for one of several types, without the branches of a union in the path of the error."""

    def check(value: object) -> object:
        if value is not None and type(value) not in kinds:
            raise ValueError(f"must be {described}")
        return value

    return AfterValidator(check)


def range_schema(name: str) -> WithJsonSchema:
    """Describe a number that `SamplingOptions` checks, for the OpenAPI document."""
    number = PARAMETERS[name]
    kind = "integer" if number.whole else "number"
    return WithJsonSchema({"type": kind, "minimum": number.least, "maximum": number.most})


Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Bias = Annotated[Number, Field(ge=-MOST_BIAS, le=MOST_BIAS)]
Text = Annotated[str, Field(strict=True)]
Texts = Annotated[
    list[Annotated[str, Field(strict=True, max_length=MAX_STOP_CHARACTERS)]],
    Field(fail_fast=True, max_length=MOST_STATED_STOPS),
    BeforeValidator(_texts),
    WithJsonSchema({"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MOST_STATED_STOPS}]}),
]
MessageList = Annotated[list[Any], Field(min_length=1, max_length=MOST_MESSAGES)]
ToolList = Annotated[list[Any], Field(max_length=MOST_TOOLS)]
Object = Annotated[dict[str, Any], WithJsonSchema(_OBJECT)]
ObjectOrText = Annotated[Any, _kinds("an object, or its JSON", dict, str), WithJsonSchema({"anyOf": [_OBJECT, _TEXT]})]
FlagOrText = Annotated[
    Any, _kinds("true, false or a text", bool, str), WithJsonSchema({"anyOf": [{"type": "boolean"}, _TEXT]})
]
Duration = Annotated[
    Any, _kinds("seconds, or a text like 5m", int, float, str), WithJsonSchema({"anyOf": [{"type": "number"}, _TEXT]})
]
_PIECE = {"anyOf": [{"type": "integer", "minimum": 0}, _TEXT]}
_TOKENS = {"type": "array", "items": _PIECE, "minItems": 1}
PromptField = Annotated[
    Any,
    WithJsonSchema({"anyOf": [_TEXT, _array(_TEXT, MOST_PROMPTS), _TOKENS, _array(_TOKENS, MOST_PROMPTS)]}),
]
InputField = Annotated[Any, WithJsonSchema({"anyOf": [_TEXT, _array(_OBJECT, MOST_MESSAGES)]})]
_Key = Annotated[str, StringConstraints(strict=True, max_length=64)]
_Value = Annotated[str, StringConstraints(strict=True, max_length=512)]


class LenientModel(BaseModel):
    """A body that may have more fields."""

    model_config = ConfigDict(extra="allow")


class StreamOptions(LenientModel):
    """Additions to a stream."""

    include_usage: Flag | None = Field(None, description="Send one more chunk at the end, with the usage.")


class GenerationFields(LenientModel):
    """Fields of every request that generates. Sampling that is not given is as the model recommends."""

    model: Text | None = Field(None, description="A served name or alias; empty is the server's first model.")
    stream: Flag | None = None
    seed: Whole | None = Field(None, description="Of the draw; negative picks one. Choice `i` of several has seed + i.")
    temperature: Annotated[Number, range_schema("temperature")] | None = None
    top_p: Annotated[Number, range_schema("top_p")] | None = None
    top_k: Annotated[Whole, range_schema("top_k")] | None = None
    min_p: Annotated[Number, range_schema("min_p")] | None = None
    repeat_penalty: Annotated[Number, range_schema("repeat_penalty")] | None = None
    keep_alive: Duration = Field(
        None, description="How long the model stays in memory afterwards: seconds, `5m`; negative is for ever."
    )


class OpenAIFields(GenerationFields):
    """Fields of all requests to OpenAI's APIs."""

    stop: Texts | None = None
    presence_penalty: Annotated[Number, range_schema("presence_penalty")] | None = None
    frequency_penalty: Annotated[Number, range_schema("frequency_penalty")] | None = None


class SharedFields(OpenAIFields):
    """Fields of chats and completions."""

    stream_options: StreamOptions | None = None
    n: Annotated[Whole, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[Whole, Field(ge=-1)] | None = Field(
        None, description="The most to generate; -1 is as many as there is room for, and more than that is no error."
    )
    n_predict: Annotated[Whole, Field(ge=-1)] | None = Field(None, description="Another name of `max_tokens`.")
    logit_bias: Annotated[dict[str, Bias] | None, BeforeValidator(_pairs)] = Field(
        None, description="By token id, what is added to its logit; -100 forbids it."
    )
    typical_p: Annotated[Number, range_schema("typical_p")] | None = None
    repetition_penalty: Annotated[Number, range_schema("repeat_penalty")] | None = Field(
        None, description="Another name of `repeat_penalty`."
    )
    repeat_last_n: Annotated[Whole, range_schema("penalty_last_n")] | None = Field(
        None, description="How many tokens all three penalties look at; -1 is all."
    )
    dry_multiplier: Annotated[Number, range_schema("dry_multiplier")] | None = None
    dry_base: Annotated[Number, range_schema("dry_base")] | None = None
    dry_allowed_length: Annotated[Whole, range_schema("dry_allowed_length")] | None = None
    dry_penalty_last_n: Annotated[Whole, range_schema("dry_penalty_last_n")] | None = None
    dry_sequence_breakers: Texts | None = None
    mirostat: Annotated[Whole, range_schema("mirostat")] | None = None
    mirostat_tau: Annotated[Number, range_schema("mirostat_tau")] | None = None
    mirostat_eta: Annotated[Number, range_schema("mirostat_eta")] | None = None
    samplers: Any = Field(
        None, description="As llama.cpp's server takes it: those that are left out do nothing; the order is its own."
    )
    ignore_eos: Flag | None = Field(None, description="No token ends the answer.")
    min_tokens: Whole | None = Field(None, description="Only together with `ignore_eos`.")
    response_format: Object | None = Field(None, description="text, json_object, or json_schema.")
    json_schema: ObjectOrText = Field(None, description="As llama.cpp's server and SGLang take it: a JSON schema.")
    grammar: Text | None = Field(None, description="As llama.cpp's server takes it: GBNF, or Lark after `%llguidance`.")
    regex: Text | None = Field(None, description="As SGLang takes it.")
    ebnf: Text | None = Field(None, description="As SGLang takes it: GBNF, or Lark.")
    guided_json: ObjectOrText = Field(None, description="As vLLM takes it: a JSON schema.")
    guided_regex: Text | None = None
    guided_choice: Annotated[list[Text], Field(fail_fast=True)] | None = None
    guided_grammar: Text | None = Field(None, description="GBNF, or Lark.")
    structured_outputs: Object | None = Field(None, description="As vLLM takes it: json, regex, choice or grammar.")


class ChatRequest(SharedFields):
    """OpenAI's Chat Completions."""

    messages: Annotated[MessageList, messages_schema(_ROLES, _PARTS)]
    max_completion_tokens: Annotated[Whole, Field(ge=-1)] | None = Field(
        None, description="As `max_tokens`, and counts before it."
    )
    tools: ToolList | None = Field(None, description="Functions on offer.")
    tool_choice: Any = Field(None, description="`auto`, `none`, `required`, a function, or `allowed_tools`.")
    parallel_tool_calls: Flag | None = None
    functions: ToolList | None = Field(None, description="The older form of `tools`; a reply has a `function_call`.")
    function_call: Any = Field(None, description="With `functions`: `auto`, `none`, or a function.")
    logprobs: Flag | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    reasoning_effort: Text | None = Field(
        None, description="`none` answers at once; `minimal` to `medium` limit the tokens of reasoning."
    )
    reasoning: Object | None = Field(None, description="As OpenRouter takes it: enabled, effort, max_tokens, exclude.")
    thinking: Object | None = Field(None, description="As Anthropic takes it: type, budget_tokens.")
    think: FlagOrText = Field(None, description="As Ollama takes it.")
    enable_thinking: Flag | None = None
    thinking_budget_tokens: Whole | None = Field(None, description="The most tokens of reasoning; -1 is any number.")
    include_reasoning: Flag | None = Field(None, description="False leaves reasoning out of the answer.")
    chat_template_kwargs: Object | None = Field(None, description="thinking, enable_thinking, keep_cots.")
    continue_final_message: Flag | None = Field(
        None, description="Go on with a last message of the assistant, as is the default; false begins another turn."
    )
    add_generation_prompt: Flag | None = Field(None, description="As vLLM takes it: true begins another turn.")
    echo: Flag | None = Field(None, description="Give a last message that is continued back before the new text.")
    server_tools: Flag | None = Field(
        None, description="Let the server run the tools that its operator allows, as a model's name with `+tools` does."
    )


class CompletionRequest(SharedFields):
    """OpenAI's older Completions: a prompt that is continued as it stands, without a chat template."""

    prompt: PromptField = Field(description="A text, a list of texts, or of token ids.")
    logprobs: Annotated[Whole, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    suffix: Text | None = Field(
        None, description="What follows on the text, for models whose vocabulary has tokens for filling in the middle."
    )
    echo: Flag | None = Field(None, description="Give the prompt back before the text.")
    prompt_logprobs: Annotated[Whole, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = Field(
        None, description="As vLLM takes it: log-probabilities of the prompt, with so many alternatives."
    )
    best_of: Whole | None = Field(None, description="Only the same as `n`.")


class ResponseRequest(OpenAIFields):
    """OpenAI's Responses, and a few of what llama.cpp's clients add."""

    input: InputField = Field(description="A text, or messages, calls of functions, their outputs, and reasoning.")
    instructions: Text | None = Field(None, description="A system prompt; those of earlier responses are not kept.")
    previous_response_id: Text | None = Field(None, description="Of a stored response that this one goes on from.")
    store: Flag | None = Field(None, description="Keep the response in memory for a while; true by default.")
    tools: ToolList | None = Field(None, description="Functions on offer.")
    tool_choice: Any = Field(None, description="`auto`, `none`, `required`, a function, or `allowed_tools`.")
    parallel_tool_calls: Flag | None = None
    text: Object | None = Field(None, description="`format`: text, json_object or json_schema.")
    reasoning: Object | None = Field(None, description="`effort`, as in chats; with `summary`, it comes as one.")
    max_output_tokens: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="The most to generate, reasoning included; more than there is room for is no error."
    )
    top_logprobs: Annotated[Whole, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    include: list[Any] | None = Field(
        None, description="`message.output_text.logprobs`; nothing else changes anything."
    )
    metadata: Annotated[dict[_Key, _Value], Field(max_length=MOST_METADATA)] | None = Field(
        None, description="Given back as it is."
    )
    chat_template_kwargs: Object | None = Field(None, description="thinking, enable_thinking, keep_cots.")


REFUSED: dict[str, tuple[object, ...]] = {
    "adaptive_target": (-1,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "chat_template": (),
    "documents": ([],),
    "dynatemp_range": (0,),
    "guidance_scale": (1,),
    "include_stop_str_in_output": (False,),
    "logits_processors": ([],),
    "lora": (),
    "modalities": (["text"],),
    "moderation": (),
    "n_indent": (0,),
    "no_stop_trim": (False,),
    "prompt_logprobs": (0,),
    "reasoning_format": ("auto", "deepseek"),
    "smoothing_factor": (0,),
    "stop_regex": ("", []),
    "stop_token_ids": ([],),
    "structural_tag": (),
    "suffix": ("",),
    "t_max_predict_ms": (0, -1),
    "tfs_z": (1,),
    "top_a": (0,),
    "top_n_sigma": (0, -1),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "web_search_options": (),
    "xtc_probability": (0,),
}
"""Fields of other servers that would change the result and are not supported, with the values that ask for nothing."""

UNANSWERED = frozenset(
    {
        "response_fields",
        "return_progress",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "post_sampling_probs",
        "stream_options.continuous_usage_stats",
    }
)
"""Fields of other servers that ask for more, or for less, in the reply: it is as always, and `warnings` say so."""

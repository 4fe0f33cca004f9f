// One answer: the request that a conversation makes, and what comes back, put into its last message.

import { streamChat } from "./api.js";

/** Return the conversation as the API takes it: calls that the server ran become calls and their results again. */
export function apiMessages(session) {
  const made = session.system ? [{ role: "system", content: session.system }] : [];
  session.messages.forEach((message, at) => {
    if (message.role === "user") made.push({ role: "user", content: message.text });
    else made.push(...assistantMessages(message, at));
  });
  return made;
}

function assistantMessages(message, at) {
  const made = [];
  let content = "";
  message.parts.forEach((part, number) => {
    if (part.type === "text") content += part.text;
    if (part.type !== "calls") return;
    const ids = part.calls.map((_, index) => `call_${at}_${number}_${index}`);
    const calls = part.calls.map((call, index) => ({
      id: ids[index],
      type: "function",
      function: { name: call.name, arguments: JSON.stringify(call.arguments) },
    }));
    made.push({ role: "assistant", content: content || null, tool_calls: calls });
    part.calls.forEach((call, index) => {
      made.push({ role: "tool", tool_call_id: ids[index], name: call.name, content: call.result });
    });
    content = "";
  });
  if (content) made.push({ role: "assistant", content });
  return made;
}

/**
 * Generate into the last message of a session, which is the assistant's, and call `changed` for each piece.
 *
 * A message that has text already is gone on with. Nothing is thrown: the message's state and error say how it ended;
 * the return value is the error, if there was one.
 */
export async function generate(session, signal, changed) {
  const message = session.messages.at(-1);
  const continued = message.parts.length > 0;
  const history = continued ? session.messages : session.messages.slice(0, -1);
  const body = {
    model: session.model || undefined,
    messages: apiMessages({ ...session, messages: history }),
    stream: true,
    stream_options: { include_usage: true },
    ...session.options,
  };
  Object.assign(message, { state: "streaming", error: "", finish: "" });
  const began = performance.now();
  let firstSeconds = null;
  try {
    for await (const chunk of streamChat(body, signal)) {
      if (chunk.model) message.model = chunk.model;
      const choice = chunk.choices[0];
      if (choice && take(message, choice.delta)) firstSeconds ??= (performance.now() - began) / 1000;
      if (choice?.finish_reason) message.finish = choice.finish_reason;
      if (chunk.timings) message.stats = stats(chunk, firstSeconds);
      if (chunk.warnings) message.warnings = chunk.warnings;
      changed();
    }
    message.state = "done";
  } catch (error) {
    if (error.name === "AbortError") {
      message.state = "stopped";
      return null;
    }
    Object.assign(message, { state: "failed", error: error.message });
    return error;
  } finally {
    changed();
  }
  return null;
}

/** Put a delta into the parts of a message; return whether there was anything in it. */
function take(message, delta) {
  const reasoning = delta.reasoning_content ?? delta.reasoning;
  if (reasoning) append(message, "reasoning", reasoning);
  if (delta.content) append(message, "text", delta.content);
  if (delta.server_tool_calls) message.parts.push({ type: "calls", calls: delta.server_tool_calls });
  for (const call of delta.tool_calls ?? []) takeCall(message, call);
  return Boolean(reasoning || delta.content || delta.server_tool_calls || delta.tool_calls);
}

function append(message, type, text) {
  const last = message.parts.at(-1);
  if (last?.type === type) last.text += text;
  else message.parts.push({ type, text });
}

function takeCall(message, delta) {
  let last = message.parts.at(-1);
  if (last?.type !== "asked") message.parts.push((last = { type: "asked", calls: [] }));
  const call = (last.calls[delta.index] ??= { name: "", arguments: "" });
  if (delta.function?.name) call.name = delta.function.name;
  call.arguments += delta.function?.arguments ?? "";
}

function stats({ usage, timings }, firstSeconds) {
  return {
    promptTokens: usage?.prompt_tokens ?? 0,
    tokens: usage?.completion_tokens ?? timings.predicted_n,
    perSecond: timings.predicted_per_second,
    firstSeconds,
  };
}

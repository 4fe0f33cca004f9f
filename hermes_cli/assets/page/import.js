// Conversations from files: those that this page saved as JSON, and lists of messages in OpenAI's shape, as
// `hermes sessions export --format json` writes them. Only what is known is taken, each value by its type.

import { newSession } from "./store.js";

const OPTIONS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"];
const STATES = ["done", "stopped", "failed"];

const text = (value) => (typeof value === "string" ? value : "");
const list = (value) => (Array.isArray(value) ? value : []);

/** Return the conversation of a file as a new one; throw an Error that says what is wrong. */
export function readConversation(content, name) {
  let document;
  try {
    document = JSON.parse(content);
  } catch {
    throw new Error(`${name} is not JSON.`);
  }
  if (Array.isArray(document)) document = { messages: document };
  const given = list(document?.messages).filter((message) => typeof message?.role === "string");
  const isOurs = given.some((message) => Array.isArray(message.parts) || typeof message.text === "string");
  const read = isOurs ? given.map(ownMessage).filter(Boolean) : openAiMessages(given);
  const messages = read.filter((message) => (message.role === "user" ? message.text : message.parts.length));
  if (!messages.length) throw new Error(`${name} holds no conversation.`);
  const system = text(document.system) || textOf(given.find(({ role }) => role === "system")?.content);
  const question = messages.find(({ role }) => role === "user")?.text ?? "";
  const title = text(document.title) || question.trim().replace(/\s+/g, " ") || name;
  return { ...newSession(), title: title.slice(0, 80), model: text(document.model), system, options: options(document), messages };
}

function options({ options: given }) {
  const numbers = OPTIONS.filter((name) => typeof given?.[name] === "number").map((name) => [name, given[name]]);
  const effort = text(given?.reasoning_effort);
  return { ...Object.fromEntries(numbers), ...(effort && { reasoning_effort: effort }) };
}

function ownMessage(message) {
  if (message.role === "user") return { role: "user", text: text(message.text) };
  if (message.role !== "assistant") return null;
  const parts = list(message.parts).map(ownPart).filter(Boolean);
  const state = STATES.includes(message.state) ? message.state : "stopped";
  const error = text(message.error) || undefined;
  return { role: "assistant", parts, state, model: text(message.model), error, finish: text(message.finish) };
}

function ownPart(part) {
  if (["text", "reasoning"].includes(part?.type)) return { type: part.type, text: text(part.text) };
  if (!["calls", "asked"].includes(part?.type)) return null;
  return { type: part.type, calls: list(part.calls).map(ownCall) };
}

function ownCall(call) {
  const seconds = typeof call?.seconds === "number" ? call.seconds : 0;
  const id = text(call?.id) || undefined;
  return { id, name: text(call?.name), arguments: call?.arguments ?? "", result: text(call?.result), failed: call?.failed === true, seconds };
}

/** Return messages of the Chat Completions API as ours: calls and their results are parts of one answer. */
function openAiMessages(given) {
  const results = new Map(given.filter(({ role }) => role === "tool").map((message) => [message.tool_call_id, message]));
  const messages = [];
  for (const message of given) {
    if (message.role === "user") messages.push({ role: "user", text: textOf(message.content) });
    if (message.role !== "assistant") continue;
    let last = messages.at(-1);
    if (last?.role !== "assistant") messages.push((last = { role: "assistant", parts: [], state: "done", model: "" }));
    if (text(message.reasoning_content)) last.parts.push({ type: "reasoning", text: message.reasoning_content });
    if (textOf(message.content)) last.parts.push({ type: "text", text: textOf(message.content) });
    const calls = list(message.tool_calls).map(({ id, function: called }) => ({
      ...ownCall({ id, ...called }),
      result: textOf(results.get(id)?.content),
    }));
    const ran = calls.every(({ id }) => results.has(id));
    if (calls.length) last.parts.push({ type: ran ? "calls" : "asked", calls });
  }
  return messages;
}

/** Return the text of a content, which may be a list of parts. */
function textOf(content) {
  if (!Array.isArray(content)) return text(content);
  return content.map((part) => text(part?.text)).join("");
}

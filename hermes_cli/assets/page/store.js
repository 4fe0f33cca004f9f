// Conversations in the browser's own database. A conversation ("session") is
//   { id, title, created, updated, model, system, options, messages }
// and a message { role: "user", text } or
//   { role: "assistant", parts, state, model, error, finish, stats, warnings }
// whose parts are { type: "reasoning" | "text", text }, { type: "calls", calls } of tools that the server ran, and
// { type: "asked", calls } of tools that the model called and nobody ran. The state is streaming, done, stopped or failed.

const DEFAULTS = "hermes.defaults"; // model, system prompt and options of the next new conversation
const unsaved = new Map(); // where the database is off

const asPromise = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Wait until what was written outlives the page: a request alone succeeds before that. */
const committed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });

const database = new Promise((resolve) => {
  try {
    const opening = indexedDB.open("hermes", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("sessions", { keyPath: "id" });
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => resolve(null);
  } catch {
    resolve(null);
  }
});

async function sessions(mode) {
  const open = await database;
  return open?.transaction("sessions", mode).objectStore("sessions");
}

/** Return all conversations, the latest first. */
export async function allSessions() {
  const stored = await sessions("readonly");
  const found = stored ? await asPromise(stored.getAll()) : [...unsaved.values()];
  for (const session of found) {
    // Left while it was written: the page was closed or loaded anew.
    for (const message of session.messages) if (message.state === "streaming") message.state = "stopped";
  }
  return found.sort((one, other) => other.updated - one.updated);
}

export async function saveSession(session) {
  const stored = await sessions("readwrite");
  if (stored) {
    stored.put(session);
    await committed(stored.transaction);
  } else unsaved.set(session.id, session);
}

export async function deleteSession(id) {
  const stored = await sessions("readwrite");
  if (stored) {
    stored.delete(id);
    await committed(stored.transaction);
  } else unsaved.delete(id);
}

export function newSession() {
  const { model = "", system = "", options = {} } = savedDefaults();
  const now = Date.now();
  const id = `${now.toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
  return { id, title: "", created: now, updated: now, model, system, options, messages: [] };
}

function savedDefaults() {
  try {
    return JSON.parse(localStorage.getItem(DEFAULTS)) ?? {};
  } catch {
    return {};
  }
}

export function saveDefaults({ model, system, options }) {
  try {
    localStorage.setItem(DEFAULTS, JSON.stringify({ model, system, options }));
  } catch {
    // Storage is off: the next conversation begins plainly.
  }
}

/** Return the text of a message's answer, without reasoning and calls. */
export function textOf(message) {
  if (message.role === "user") return message.text;
  return message.parts.filter((part) => part.type === "text").map((part) => part.text).join("\n\n");
}

/** Return a conversation as a Markdown document. */
export function asMarkdown(session) {
  const blocks = [`# ${session.title || "Conversation"}`];
  if (session.system) blocks.push(`## System\n\n${session.system}`);
  for (const message of session.messages) {
    blocks.push(message.role === "user" ? `## You\n\n${message.text}` : `## ${message.model || "Model"}`);
    for (const part of message.parts ?? []) {
      if (part.type === "text") blocks.push(part.text);
      else if (part.type === "reasoning") blocks.push(part.text.replace(/^/gm, "> "));
      else for (const call of part.calls) blocks.push(callAsMarkdown(call));
    }
  }
  return `${blocks.join("\n\n")}\n`;
}

function callAsMarkdown(call) {
  const text = `${call.name}(${JSON.stringify(call.arguments)})\n${call.result ?? ""}`.trimEnd();
  const fence = "`".repeat(Math.max(3, ...(text.match(/`+/g) ?? []).map((run) => run.length + 1)));
  return `${fence}text\n${text}\n${fence}`;
}

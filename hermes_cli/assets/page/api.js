// The HTTP API of the server that the page came from.

const KEY = "hermes.key";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // of HTTP; 0 if there was no reply
  }
}

export function savedKey() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return unsavedKey;
  }
}

let unsavedKey = ""; // where storage is off

export function saveKey(key) {
  unsavedKey = key;
  try {
    if (key) localStorage.setItem(KEY, key);
    else localStorage.removeItem(KEY);
  } catch {
    // Storage is off: the key is good until the page is closed.
  }
}

/** Request a path below the page's own; throw an ApiError with the server's own words for what went wrong. */
async function request(path, options = {}) {
  const headers = { ...options.headers };
  // A header takes bytes as characters: those of UTF-8, which is how the server reads a key.
  const key = String.fromCharCode(...new TextEncoder().encode(savedKey()));
  if (key) headers.Authorization = `Bearer ${key}`;
  let reply;
  try {
    reply = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is hermes serve still running?", 0);
  }
  if (reply.ok) return reply;
  let message = `${reply.status} ${reply.statusText}`;
  try {
    message = (await reply.json()).error?.message ?? message;
  } catch {
    // Not from this server: a proxy's error has no JSON.
  }
  throw new ApiError(message, reply.status);
}

export const getJson = async (path) => (await request(path)).json();
export const getText = async (path) => (await request(path)).text();

/** Yield the chunks of a streamed chat completion; throw an ApiError if one says that it failed, or it just ends. */
export async function* streamChat(body, signal) {
  const reply = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const data of events(reply.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message ?? "The answer failed.", 0);
    yield chunk;
  }
  throw new ApiError("The connection ended before the answer did.", 0);
}

/** Yield the data of Server-Sent Events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    let value, done;
    try {
      ({ value, done } = await reader.read());
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection ended before the answer did.", 0);
    }
    if (done) return;
    const lines = (buffer + value).split("\n");
    buffer = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6).trimEnd();
  }
}

// The page: which conversation and view are open, and what each button and key does.

import { getJson } from "./api.js";
import { Conversation } from "./conversation.js";
import { announce, button, byId, download, element } from "./dom.js";
import { readConversation } from "./import.js";
import { ServerStatus } from "./server_status.js";
import { askForKey, openSettings } from "./settings.js";
import { allSessions, asMarkdown, deleteSession, newSession, saveDefaults, saveSession } from "./store.js";

const OPEN = "hermes.open"; // the conversation that is open, for a reload
const EXAMPLES = ["What can you do?", "Write a Python function that finds prime numbers.", "Explain what a KV cache is."];
const touch = matchMedia("(pointer: coarse)").matches; // Enter begins a line there, as on any phone

const question = byId("question");
const conversation = new Conversation({ changed: showState, failed: onError });
const status = new ServerStatus({ failed: onError });
let sessions = [];
let models = [];

async function start() {
  for (const text of EXAMPLES) byId("examples").append(element("li", {}, button(text, () => send(text))));
  sessions = await allSessions();
  const open = sessionStorage.getItem(OPEN);
  openSession(sessions.find((session) => session.id === open) ?? newSession());
  await loadModels();
  if (!touch) question.focus();
}

async function loadModels() {
  try {
    models = (await getJson("v1/models")).data.filter((model) => !model.capabilities.embeddings);
    showTrouble("");
  } catch (error) {
    await onError(error);
    return;
  }
  const options = models.map(({ id }) => {
    const tools = id.endsWith("+tools") ? `${id.slice(0, -"+tools".length)} with the server's tools` : id;
    return element("option", { value: id }, tools);
  });
  byId("model").replaceChildren(...options);
  chooseModel();
}

function chooseModel() {
  const { session } = conversation;
  if (!models.some(({ id }) => id === session.model)) session.model = models[0]?.id ?? session.model;
  byId("model").value = session.model;
}

function openSession(session) {
  conversation.open(session);
  sessionStorage.setItem(OPEN, session.id);
  chooseModel();
  closeSidebar();
  showState();
}

function showState() {
  const { session, busy } = conversation;
  if (!session) return;
  if (session.messages.length && !sessions.includes(session)) sessions.unshift(session);
  sessions.sort((one, other) => other.updated - one.updated);
  byId("sessions").replaceChildren(...sessions.map(sessionItem));
  byId("send").hidden = busy;
  byId("stop").hidden = !busy;
  const empty = session.messages.length === 0;
  byId("export-markdown").hidden = byId("export-json").hidden = empty;
  // The usage of a turn with calls adds up its rounds, which is not what the context holds.
  const plain = (message) => message.stats && !message.parts.some(({ type }) => type === "calls");
  const used = session.messages.findLast(plain)?.stats;
  const context = models.find(({ id }) => id === session.model)?.context_length;
  const tokens = used && (used.promptTokens + used.tokens).toLocaleString("en");
  byId("session-info").textContent = empty || !context || !used ? "" : `${tokens} of ${context.toLocaleString("en")} tokens`;
  document.title = session.title ? `${session.title} – hermes` : "hermes";
}

function sessionItem(session) {
  const open = button(session.title, () => openSession(session), { class: "open" });
  if (session === conversation.session) open.setAttribute("aria-current", "true");
  const rename = button("✎", () => renameSession(session), { class: "icon small rename" });
  rename.setAttribute("aria-label", `Rename ${session.title}`);
  const remove = button("✕", () => removeSession(session), { class: "icon small remove" });
  remove.setAttribute("aria-label", `Delete ${session.title}`);
  return element("li", {}, open, rename, remove);
}

async function renameSession(session) {
  const title = prompt("Name of this conversation", session.title)?.trim().slice(0, 80);
  if (!title || title === session.title) return;
  session.title = title;
  await saveSession(session);
  announce("Renamed.");
  showState();
}

async function importFiles(files) {
  for (const file of files) {
    try {
      const session = readConversation(await file.text(), file.name);
      await saveSession(session);
      sessions.unshift(session);
      openSession(session);
      showTrouble("");
      announce(`${session.title} is opened.`);
    } catch (error) {
      closeSidebar();
      showTrouble(error.message);
    }
  }
}

async function removeSession(session) {
  if (!confirm(`Delete “${session.title}”? It cannot be brought back.`)) return;
  if (session === conversation.session) openSession(newSession());
  sessions = sessions.filter((other) => other !== session);
  await deleteSession(session.id);
  announce("Deleted.");
  showState();
}

async function send(text) {
  if (!text.trim() || conversation.busy) return;
  question.value = "";
  fit();
  showTrouble("");
  const asked = conversation.ask(text);
  showState();
  await asked;
  showState();
}

async function onError(error) {
  if (error.status === 401) {
    if (await askForKey(error.message)) await loadModels();
    else showTrouble("This server needs a key: Settings, Key of the server.");
  } else if (error.status === 0 || error.status === undefined) {
    showTrouble(error.message);
  }
}

function showTrouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

function stop() {
  conversation.stop();
  showState();
  question.focus();
}

/** Make the field as high as its text. */
function fit() {
  question.rows = Math.min(10, Math.max(1, question.value.split("\n").length, Math.ceil(question.value.length / 90)));
}

async function showSettings() {
  const { session } = conversation;
  if (await openSettings(session, session.model)) await loadModels();
  if (session.messages.length) await conversation.save();
}

function showTab(name) {
  for (const tab of ["chat", "server"]) {
    const chosen = tab === name;
    byId(tab).hidden = !chosen;
    byId(`tab-${tab}`).setAttribute("aria-selected", String(chosen));
    byId(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
  }
  status.show(name === "server");
  if (name === "chat") conversation.follow();
}

function openSidebar() {
  document.body.classList.add("sidebar-open");
  byId("shade").hidden = false;
  byId("open-sidebar").setAttribute("aria-expanded", "true");
  byId("new-chat").focus();
}

function closeSidebar() {
  document.body.classList.remove("sidebar-open");
  byId("shade").hidden = true;
  byId("open-sidebar").setAttribute("aria-expanded", "false");
}

function startNew() {
  showTab("chat");
  openSession(newSession());
  question.focus();
}

function fileName(ending) {
  const name = conversation.session.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 50);
  return `${name || "conversation"}.${ending}`;
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send(question.value);
});
question.addEventListener("input", fit);
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch) {
    event.preventDefault();
    send(question.value);
  } else if (event.key === "ArrowUp" && question.value === "" && !conversation.busy) {
    event.preventDefault();
    conversation.editLast();
  }
});
document.addEventListener("keydown", (event) => {
  const command = event.ctrlKey || event.metaKey;
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key === "Escape" && document.body.classList.contains("sidebar-open")) closeSidebar();
  else if (event.key === "Escape" && conversation.busy && !event.target.closest("dialog")) stop();
  else if (command && event.shiftKey && event.key.toLowerCase() === "o") startNew();
  else if (command && event.key === ",") showSettings();
  else if (event.key === "/" && !typing && !command) question.focus();
  else return;
  event.preventDefault();
});
byId("stop").addEventListener("click", stop);
byId("new-chat").addEventListener("click", startNew);
byId("import").addEventListener("click", () => byId("import-files").click());
byId("import-files").addEventListener("change", async ({ target }) => {
  await importFiles([...target.files]);
  target.value = ""; // the same file again is a change, too
});
byId("open-settings").addEventListener("click", showSettings);
byId("open-sidebar").addEventListener("click", openSidebar);
for (const id of ["close-sidebar", "shade"]) byId(id).addEventListener("click", closeSidebar);
byId("model").addEventListener("change", () => {
  conversation.session.model = byId("model").value;
  saveDefaults(conversation.session);
  showState();
});
for (const [tab, other] of [["chat", "server"], ["server", "chat"]]) {
  byId(`tab-${tab}`).addEventListener("click", () => showTab(tab));
  byId(`tab-${tab}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    showTab(other);
    byId(`tab-${other}`).focus();
  });
}
byId("export-markdown").addEventListener("click", () => {
  download(fileName("md"), "text/markdown", asMarkdown(conversation.session));
});
byId("export-json").addEventListener("click", () => {
  download(fileName("json"), "application/json", JSON.stringify(conversation.session, null, 2));
});
addEventListener("pagehide", () => conversation.busy && conversation.save());

start();

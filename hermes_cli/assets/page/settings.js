// The dialogs: settings of the conversation and the browser, and the key that a server may need.

import { getJson, saveKey, savedKey } from "./api.js";
import { byId } from "./dom.js";
import { saveDefaults } from "./store.js";

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"];
const THEME = "hermes.theme";

/** Show the settings of a session; return when they are closed and taken over. */
export async function openSettings(session, model) {
  const dialog = byId("settings");
  const fields = dialog.querySelector("form").elements;
  fields.system.value = session.system;
  fields.reasoning_effort.value = session.options.reasoning_effort ?? "";
  for (const name of NUMBERS) fields[name].value = session.options[name] ?? "";
  fields.theme.value = document.documentElement.dataset.theme ?? "";
  fields.theme.onchange = () => setTheme(fields.theme.value);
  const keyBefore = (fields.key.value = savedKey());
  showDefaults(fields, model);
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  session.system = fields.system.value.trim();
  session.options = {};
  for (const name of NUMBERS) {
    if (fields[name].value !== "" && fields[name].validity.valid) session.options[name] = Number(fields[name].value);
  }
  if (fields.reasoning_effort.value) session.options.reasoning_effort = fields.reasoning_effort.value;
  saveDefaults(session);
  const key = fields.key.value.trim();
  fields.key.value = "";
  if (key !== keyBefore) saveKey(key);
  return key !== keyBefore;
}

/** Write what the model's authors recommend into the empty fields. */
async function showDefaults(fields, model) {
  for (const name of NUMBERS) fields[name].placeholder = "";
  try {
    const query = model ? `?model=${encodeURIComponent(model.replace(/\+tools$/, ""))}` : "";
    const { default_generation_settings: defaults } = await getJson(`props${query}`);
    for (const name of NUMBERS) {
      const value = defaults.params[name];
      if (typeof value === "number" && name !== "seed" && value >= 0) fields[name].placeholder = String(value);
    }
  } catch {
    // Without them the fields are just empty.
  }
  fields.max_tokens.placeholder ||= "as many as there is room for";
  fields.seed.placeholder ||= "random";
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem(THEME, theme);
  } catch {
    // Storage is off: it is good until the page is closed.
  }
}

/** Ask for a key; return whether one was given. `reason` is the server's own words. */
export async function askForKey(reason) {
  const dialog = byId("ask-key");
  if (dialog.open) return false;
  const field = byId("typed-key");
  field.value = "";
  if (savedKey()) byId("ask-key-reason").textContent = `The key that this browser has is not taken: ${reason}`;
  dialog.returnValue = "cancel";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const key = field.value.trim();
  field.value = "";
  if (dialog.returnValue !== "save" || !key) return false;
  saveKey(key);
  return true;
}

// Small helpers for elements. Text from models and servers becomes text nodes, never HTML; HTML is made in markdown.js.

export const byId = (id) => document.getElementById(id);

/** Return a new element; properties are set as they are named in the DOM, `class` and `aria-…` as attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name === "role" || name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(label, action, properties = {}) {
  return element("button", { type: "button", onclick: action, ...properties }, label);
}

/** Tell a screen reader. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Put a text into the clipboard, also where the page came over plain HTTP from another machine. */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Refused: try the older way.
    }
  }
  const field = element("textarea", { value: text, class: "unseen", readOnly: true });
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied;
}

/** Copy, and say so on the button for a moment. */
export async function copyFrom(pressed, text) {
  const label = pressed.dataset.label ?? pressed.textContent;
  pressed.dataset.label = label;
  pressed.textContent = (await copyText(text)) ? "Copied" : "Not allowed here";
  announce(pressed.textContent);
  setTimeout(() => (pressed.textContent = label), 1500);
}

export function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

export const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let rank = 0;
  while (value >= 1024 && rank < units.length - 1) [value, rank] = [value / 1024, rank + 1];
  return `${number(value, rank > 1 ? 2 : 0)} ${units[rank]}`;
}

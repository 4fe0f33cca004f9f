// One message on the screen.

import { button, copyFrom, element, number } from "./dom.js";
import { GrowingMarkdown } from "./markdown.js";
import { textOf } from "./store.js";

/** A message of the user; `edited` is called with the new text. */
export function userView(message, edited) {
  const text = element("div", { class: "text", dir: "auto" }, message.text);
  const copy = button("Copy", () => copyFrom(copy, message.text));
  const actions = element("div", { class: "actions" }, button("Edit", edit, { class: "edit" }), copy);
  const article = element("article", { class: "user", "aria-label": "You" }, text, actions);

  function edit() {
    const field = element("textarea", { value: message.text, rows: 3, "aria-label": "Edit your message" });
    const save = () => field.value.trim() && edited(field.value);
    const leave = () => article.replaceChildren(text, actions) || actions.firstChild.focus();
    field.onkeydown = (event) => {
      if (event.key === "Escape") leave();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) save();
      if (["Escape", "Enter"].includes(event.key) && !event.shiftKey) event.preventDefault();
      if (event.key === "Escape") event.stopPropagation();
    };
    const buttons = element("div", { class: "buttons" }, button("Cancel", leave), button("Send", save, { class: "primary" }));
    article.replaceChildren(field, element("p", { class: "note" }, "What comes after it is answered anew."), buttons);
    field.focus();
  }

  return { element: article, edit };
}

/** A message of the model, which may still grow. Actions: `again()`, `goOn()`. */
export class AssistantView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.parts = [];
    this.body = element("div", { class: "parts" });
    this.waiting = element("p", { class: "waiting" }, element("span", { class: "unseen" }, "The model begins"));
    this.foot = element("div", { class: "foot" });
    this.element = element("article", { class: "assistant" }, this.body, this.waiting, this.foot);
    this.update();
  }

  /** Show the message as it is now; `last` is whether it can be gone on with. */
  update(last = false) {
    const { message } = this;
    const streaming = message.state === "streaming";
    this.element.setAttribute("aria-label", message.model || "Model");
    this.element.setAttribute("aria-busy", String(streaming));
    message.parts.forEach((part, at) => {
      const grows = streaming && at === message.parts.length - 1;
      if (!this.parts[at]) {
        this.parts[at] = partView(part);
        this.body.append(this.parts[at].element);
      }
      const changed = this.parts[at].length !== lengthOf(part) || this.parts[at].grew !== grows;
      Object.assign(this.parts[at], { length: lengthOf(part), grew: grows });
      if (changed) this.parts[at].show(part, grows);
    });
    this.waiting.hidden = !streaming || message.parts.length > 0;
    if (!streaming) this.showFoot(last);
    else this.foot.replaceChildren();
  }

  showFoot(last) {
    const { message } = this;
    const notes = [];
    if (message.state === "failed") notes.push(element("p", { class: "error", role: "alert" }, message.error));
    if (message.state === "stopped") notes.push(element("p", { class: "note" }, "Stopped."));
    if (message.finish === "length") notes.push(element("p", { class: "note" }, "The answer reached its longest length."));
    for (const warning of message.warnings ?? []) notes.push(element("p", { class: "note" }, warning));
    const copy = button("Copy", () => copyFrom(copy, textOf(message)));
    const unfinished = message.state !== "done" || message.finish === "length";
    const buttons = [
      textOf(message) && copy,
      button(message.state === "failed" ? "Try again" : "Regenerate", this.actions.again, { class: "again" }),
      last && unfinished && message.parts.at(-1)?.type === "text" && button("Continue", this.actions.goOn),
    ].filter(Boolean);
    const actions = element("div", { class: "actions" }, ...buttons, element("span", { class: "stats" }, statsText(message)));
    this.foot.replaceChildren(...notes, actions);
  }
}

function statsText({ stats, model }) {
  if (!stats) return model ?? "";
  const shown = [model, stats.tokens === 1 ? "1 token" : `${number(stats.tokens)} tokens`];
  if (stats.perSecond) shown.push(`${number(stats.perSecond, stats.perSecond < 10 ? 1 : 0)} tokens/s`);
  if (stats.firstSeconds !== null) shown.push(`first after ${number(stats.firstSeconds, 2)} s`);
  return shown.join(" · ");
}

const lengthOf = (part) => part.text?.length ?? JSON.stringify(part.calls).length;

/** Return { element, show(part, grows) } for a part of a message. */
function partView(part) {
  if (part.type === "text") {
    const text = new GrowingMarkdown();
    return { element: text.element, show: ({ text: now }, grows) => (grows ? text.update(now) : text.finish(now)) };
  }
  if (part.type === "reasoning") return reasoningView();
  const list = element("div", { class: "calls" });
  const show = ({ type, calls }) => list.replaceChildren(...calls.map((call) => callView(call, type === "calls")));
  return { element: list, show };
}

function reasoningView() {
  const summary = element("summary");
  const text = element("div", { class: "reasoning-text", dir: "auto" });
  const folded = element("details", { class: "reasoning" }, summary, text);
  const show = (part, grows) => {
    const words = part.text.split(/\s+/).filter(Boolean).length;
    summary.textContent = `${grows ? "Thinking…" : "Reasoning"} ${number(words)} words`;
    text.textContent = part.text.trim();
  };
  return { element: folded, show };
}

function callView(call, ran) {
  const outcome = !ran ? "not run: this page has no tools" : call.failed ? "failed" : "done";
  const time = ran ? `, ${number(call.seconds, 2)} s` : "";
  const summary = element("summary", {}, "Tool ", element("code", {}, call.name), ` ${outcome}${time}`);
  const written = typeof call.arguments === "string" ? call.arguments : JSON.stringify(call.arguments, null, 2);
  const details = element("details", { class: call.failed ? "call failed" : "call" }, summary);
  details.append(element("h4", {}, "Arguments"), element("pre", { tabIndex: 0 }, written));
  if (ran) details.append(element("h4", {}, "Result"), element("pre", { tabIndex: 0 }, call.result));
  return details;
}

// The conversation that is open: its messages on the screen, and the answer that is being written.

import { announce, byId, element } from "./dom.js";
import { AssistantView, userView } from "./message_view.js";
import { saveSession, textOf } from "./store.js";
import { generate } from "./turn.js";

const SAVE_EVERY = 1000; // milliseconds, while an answer is written
const MOST_ANNOUNCED = 2000; // characters of an answer that a screen reader is told at once
const NEAR_END = 80; // pixels from the end that still count as being there

export class Conversation {
  /** `changed` is called when the session was saved or its state changed, `failed` with an error of the API. */
  constructor({ changed, failed }) {
    Object.assign(this, { changed, failed, session: null, views: [], running: null, saved: 0, atEnd: true });
    this.list = byId("messages");
    this.scroller = byId("scroller");
    this.toEnd = byId("to-end");
    this.scroller.addEventListener("scroll", () => this.scrolled());
    this.toEnd.addEventListener("click", () => this.follow(true));
    new ResizeObserver(() => this.follow()).observe(this.list);
  }

  get busy() {
    return this.running !== null;
  }

  open(session) {
    this.stop();
    this.session = session;
    this.showAll();
    this.follow(true);
  }

  showAll() {
    const { messages } = this.session;
    this.views = messages.map((message, at) => this.view(message, at));
    this.list.replaceChildren(...this.views.map((view) => element("li", {}, view.element)));
    byId("welcome").hidden = messages.length > 0;
    const last = this.views.at(-1);
    if (last instanceof AssistantView) last.update(true);
  }

  view(message, at) {
    if (message.role === "user") return userView(message, (text) => this.edit(at, text));
    return new AssistantView(message, { again: () => this.again(at), goOn: () => this.goOn() });
  }

  /** Ask a question, and have it answered. */
  ask(text) {
    const { session } = this;
    session.messages.push({ role: "user", text });
    if (!session.title) session.title = text.trim().replace(/\s+/g, " ").slice(0, 80);
    return this.answer();
  }

  /** Change a question; what came after it is left out. */
  edit(at, text) {
    this.stop();
    this.session.messages.length = at;
    return this.ask(text);
  }

  /** Answer the question before a message anew; what came after it is left out. */
  again(at) {
    this.stop();
    this.session.messages.length = at;
    return this.answer();
  }

  /** Edit the last question. */
  editLast() {
    const at = this.session.messages.findLastIndex((message) => message.role === "user");
    if (at >= 0) this.views[at].edit();
  }

  answer() {
    this.session.messages.push({ role: "assistant", parts: [], state: "streaming", model: this.session.model });
    return this.goOn();
  }

  /** Generate into the last message. */
  async goOn() {
    const { session } = this;
    const message = session.messages.at(-1);
    message.state = "streaming";
    this.showAll();
    this.follow(true);
    const view = this.views.at(-1);
    const running = (this.running = new AbortController());
    session.updated = Date.now();
    announce("The model answers.");
    this.save(session);
    const error = await generate(session, running.signal, () => {
      view.update();
      if (Date.now() - this.saved > SAVE_EVERY) this.save(session);
    });
    if (this.running === running) this.running = null;
    view.update(session.messages.at(-1) === message);
    announce(error ? `The answer failed: ${error.message}` : spoken(message));
    await this.save(session);
    if (error) this.failed(error);
  }

  stop() {
    this.running?.abort();
    this.running = null;
  }

  async save(session = this.session) {
    this.saved = Date.now();
    try {
      await saveSession(session);
    } catch (error) {
      this.failed(new Error(`The browser cannot save this conversation: ${error.message}`));
    }
    this.changed();
  }

  /** Stay at the end of the conversation if the reader is there, or go there. */
  follow(always = false) {
    if (always) this.atEnd = true;
    if (this.atEnd) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.toEnd.hidden = this.atEnd;
  }

  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    this.toEnd.hidden = this.atEnd;
  }
}

function spoken(message) {
  const text = textOf(message);
  const end = message.state === "stopped" ? " Stopped." : "";
  return (text.length > MOST_ANNOUNCED ? `${text.slice(0, MOST_ANNOUNCED)} … The answer goes on.` : text) + end;
}

// Markdown of a model as safe elements: markdown-it makes HTML in which the model's own HTML is only text, DOMPurify
// lets a few tags through, and the page's Content-Security-Policy would run no script of it either.
/* global markdownit, DOMPurify, hljs */

import { button, copyFrom, element } from "./dom.js";

const MOST_HIGHLIGHTED = 20_000; // characters of one block of code
const MOST_IN_BLOCK = 40_000; // characters of a block that is still written; more is shown as plain text until its end
const MOST_MARKDOWN = 300_000; // characters of one message; the rest of a longer one is plain text
const SHORTEST_WAIT = 30; // milliseconds between two renderings

const markdown = markdownit({ html: false, linkify: true, breaks: false, highlight: highlighted });
const escape = markdown.utils.escapeHtml;

function highlighted(code, language) {
  if (code.length > MOST_HIGHLIGHTED || !hljs.getLanguage(language)) return escape(code);
  return hljs.highlight(code, { language, ignoreIllegals: true }).value;
}

// A picture would be fetched from elsewhere, which tells that server: it becomes a link.
markdown.renderer.rules.image = (tokens, at) => {
  const source = tokens[at].attrGet("src") ?? "";
  return `<a href="${escape(source)}">${escape(tokens[at].content || source)}</a>`;
};
// The policy allows no style attributes: the alignment of a table's cells is a class.
for (const cell of ["th", "td"]) {
  markdown.renderer.rules[`${cell}_open`] = (tokens, at) => {
    const align = /text-align:(left|center|right)/.exec(tokens[at].attrGet("style") ?? "");
    return align ? `<${cell} class="${align[1]}">` : `<${cell}>`;
  };
}

const ALLOWED = {
  ALLOWED_TAGS: [
    ..."p br hr h1 h2 h3 h4 h5 h6 strong em s a blockquote ul ol li pre code span".split(" "),
    ..."table thead tbody tr th td".split(" "),
  ],
  ALLOWED_ATTR: ["href", "class", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** Return a Markdown text as a fragment of safe elements. */
export function renderMarkdown(text) {
  const fragment = DOMPurify.sanitize(markdown.render(text), ALLOWED);
  for (const pre of fragment.querySelectorAll("pre")) wrapCode(pre);
  for (const table of fragment.querySelectorAll("table")) {
    const scroller = element("div", { class: "table", role: "region", "aria-label": "Table", tabIndex: 0 });
    table.replaceWith(scroller);
    scroller.append(table);
  }
  return fragment;
}

function wrapCode(pre) {
  const language = /language-([\w+#.-]+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
  const copy = button("Copy", () => copyFrom(copy, pre.textContent.replace(/\n$/, "")), { class: "copy-code" });
  copy.setAttribute("aria-label", language ? `Copy the ${language} code` : "Copy the code");
  pre.tabIndex = 0; // wide code is scrolled by keyboard, too
  const block = element("div", { class: "code" }, element("div", { class: "code-head" }, element("span", {}, language), copy));
  pre.replaceWith(block);
  block.append(pre);
}

/** A Markdown text that grows: blocks that are whole stay as they are, only the last one is rendered anew. */
export class GrowingMarkdown {
  constructor() {
    this.element = element("div", { class: "markdown", dir: "auto" });
    this.tail = element("div");
    this.element.append(this.tail);
    this.text = "";
    this.settled = 0; // characters whose blocks are whole
    this.timer = 0;
    this.cost = 0; // milliseconds of the last rendering: long ones happen less often
  }

  /** Take the text as far as it has come; it is shown soon. */
  update(text) {
    this.text = text;
    this.timer ||= setTimeout(() => this.render(), Math.max(SHORTEST_WAIT, 4 * this.cost));
  }

  /** Show the whole text, now. */
  finish(text) {
    this.text = text;
    // A definition at the end may give a link in the beginning its target.
    if (/^ {0,3}\[[^\]\n]+\]:/m.test(text.slice(0, MOST_MARKDOWN))) {
      this.settled = 0;
      this.element.replaceChildren(this.tail);
    }
    this.render(true);
  }

  render(whole = false) {
    clearTimeout(this.timer);
    this.timer = 0;
    const began = performance.now();
    if (this.text.length <= MOST_MARKDOWN) this.settle();
    const rest = this.text.slice(this.settled);
    const plain = this.text.length > MOST_MARKDOWN || (rest.length > MOST_IN_BLOCK && !whole);
    if (plain) this.tail.replaceChildren(element("div", { class: "plain" }, rest));
    else this.tail.replaceChildren(renderMarkdown(rest));
    this.cost = performance.now() - began;
  }

  /** Render the blocks before the last one for good. */
  settle() {
    const rest = this.text.slice(this.settled);
    const begins = markdown.parse(rest, {}).filter((token) => token.level === 0 && token.nesting >= 0 && token.map);
    const line = begins.at(-1)?.map[0] ?? 0;
    if (line === 0) return;
    let end = 0;
    for (let passed = 0; passed < line; passed++) end = rest.indexOf("\n", end) + 1;
    this.tail.before(renderMarkdown(rest.slice(0, end)));
    this.settled += end;
  }
}

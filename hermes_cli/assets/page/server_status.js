// The second tab: the models of the server and their work, from /v1/models, /slots and /metrics.

import { getJson, getText } from "./api.js";
import { byId, bytes, element, number } from "./dom.js";

const EVERY = 2000; // milliseconds between two looks, while the tab is open
const STATES = { ready: "in memory", loading: "being loaded", unloaded: "not in memory", failed: "could not be loaded" };

/** Return the samples of Prometheus' text format without labels but `model`: { name: { model: value } }. */
export function readMetrics(text) {
  const read = {};
  for (const line of text.split("\n")) {
    const match = /^(hermes_\w+)(?:\{model="((?:[^"\\]|\\.)*)"\})? ([^ ]+)$/.exec(line);
    if (!match) continue;
    const model = (match[2] ?? "").replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    (read[match[1]] ??= {})[model] = Number(match[3]);
  }
  return read;
}

export class ServerStatus {
  constructor({ failed }) {
    Object.assign(this, { failed, timer: 0, before: null, open: false });
    document.addEventListener("visibilitychange", () => this.open && !document.hidden && this.look());
  }

  show(open) {
    this.open = open;
    clearTimeout(this.timer);
    if (open) this.look();
    else this.before = null;
  }

  async look() {
    clearTimeout(this.timer);
    try {
      const [{ data }, metrics] = await Promise.all([getJson("v1/models"), getText("metrics")]);
      const models = data.filter((model) => !model.id.endsWith("+tools"));
      const slots = await Promise.all(models.map((model) => getJson(`slots?model=${encodeURIComponent(model.id)}`)));
      const now = { at: performance.now(), metrics: readMetrics(metrics) };
      const views = models.map((model, at) => modelView(model, slots[at], now, this.before));
      this.before = now;
      const total = (name) => Object.values(now.metrics[name] ?? {}).reduce((sum, value) => sum + value, 0);
      byId("server-content").replaceChildren(
        element("h1", {}, "What runs on this server"),
        element("p", { class: "note" }, [
          `${number(total("hermes_requests_running"))} answers are being written, `,
          `${number(total("hermes_requests_waiting"))} wait. `,
          `${number(total("hermes_requests_total"))} were made since it started.`,
        ].join("")),
        ...views,
      );
    } catch (error) {
      byId("server-content").replaceChildren(element("p", { class: "error", role: "alert" }, error.message));
      this.failed(error);
    }
    if (this.open && !document.hidden) this.timer = setTimeout(() => this.look(), EVERY);
  }
}

function modelView(model, slots, now, before) {
  const value = (name, at = now) => at?.metrics[name]?.[model.id] ?? 0;
  const rate = (name) => before && (1000 * (value(name) - value(name, before))) / (now.at - before.at);
  const working = slots.filter((slot) => slot.is_processing);
  const written = rate("hermes_completion_tokens_total");
  const read = rate("hermes_prompt_tokens_total");
  const facts = [
    ["File", [model.quantization, bytes(model.size)].filter(Boolean).join(", ")],
    ["Context of one request", `${number(model.context_length)} tokens`],
    ["Working on", `${working.length} of ${model.slots} at once`],
    ["Waiting", number(value("hermes_requests_waiting"))],
    ["Writing", written === null ? "…" : `${number(Math.max(written, 0), 1)} tokens/s`],
    ["Reading", read === null ? "…" : `${number(Math.max(read, 0), 1)} tokens/s`],
    ["Memory of its process", value("hermes_engine_resident_bytes") ? bytes(value("hermes_engine_resident_bytes")) : "none"],
  ];
  const list = element("dl", {}, ...facts.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));
  const badge = element("span", { class: `state ${model.state}` }, STATES[model.state] ?? model.state);
  const card = element("section", { class: "card" }, element("h2", {}, model.id, " ", badge), list);
  const cells = value("hermes_kv_cache_tokens");
  if (cells) card.append(meter("KV cache", value("hermes_kv_cache_used_tokens"), cells, "tokens"));
  for (const slot of working) card.append(slotView(slot));
  return card;
}

function slotView(slot) {
  const { n_prompt_tokens: prompt, n_prompt_tokens_processed: read, next_token: next } = slot;
  if (read < prompt) return meter(`Request ${slot.id_task} reads its prompt`, read, prompt, "tokens");
  const text = `Request ${slot.id_task}: ${number(next.n_decoded)} tokens written after ${number(prompt)} of prompt`;
  return element("p", { class: "slot" }, text);
}

function meter(label, value, most, unit) {
  const text = `${label}: ${number(value)} of ${number(most)} ${unit}`;
  return element("label", { class: "meter" }, text, element("meter", { max: most, value }));
}

// The state of both stores, from /healthz: asked rarely, more often while one is out, never while the page is hidden.

import { health } from "./api.js";

const CALM = 15_000;
const OUT = 3_000;
const WATCHED = 1_000; // after something was done to a store
const WATCHED_FOR = 12_000;

const items = [...document.querySelectorAll("#stores [data-store]")];
const outage = document.getElementById("outage");
const listeners = [];
let timer = 0;
let watchedUntil = 0;
let up = Infinity; // stores that can be used

// Its event "usable" comes when a store can be used again.
export const stores = new EventTarget();

export function label(alias) {
  return items.find((item) => item.dataset.store === alias)?.dataset.label ?? alias;
}

export function labels(aliases) {
  return aliases.map(label).join(" and ");
}

// Ask now; with `closely` each second for a while.
export function look(closely = false) {
  if (closely) watchedUntil = Date.now() + WATCHED_FOR;
  clearTimeout(timer);
  timer = setTimeout(ask, 0);
}

export function watchStores() {
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
  look();
}

// `call` gets each report, null where the service cannot be reached.
export function onReport(call) {
  listeners.push(call);
}

async function ask() {
  const report = await health();
  for (const item of items) show(item, report);
  outage.textContent = inWords(report);
  outage.hidden = !outage.textContent;
  for (const call of listeners) call(report);
  const before = up;
  up = items.filter((item) => report?.stores?.[item.dataset.store]?.up).length;
  if (up > before) stores.dispatchEvent(new Event("usable"));
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(ask, untilNext(report));
}

function untilNext(report) {
  if (Date.now() < watchedUntil) return WATCHED;
  return report?.status === "ok" ? CALM : OUT;
}

function show(item, report) {
  const store = report?.stores?.[item.dataset.store];
  const state = store ? (store.up ? "up" : "out") : "unknown";
  item.dataset.state = state;
  item.querySelector(".state").textContent = state;
}

function inWords(report) {
  if (!report?.stores) return "The service cannot be reached. A question is kept in this browser and asked again until it can or you stop it.";
  const out = items.filter((item) => !report.stores[item.dataset.store]?.up).map((item) => item.dataset.label);
  const up = items.filter((item) => report.stores[item.dataset.store]?.up).map((item) => item.dataset.label);
  if (!out.length) return "";
  if (!up.length) return "Both stores are out. A question is kept in this browser and asked again until one is back or you stop it.";
  return `${out[0]} is out. ${up[0]} answers and stores; what ${out[0]} is missing is copied when it is back.`;
}

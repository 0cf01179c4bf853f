// Asks for the status every few seconds, and for the charts every minute, and changes only what differs: focus, scroll and
// what is open stay. Without it the page shows what it was sent. What cannot be asked for is never shown as fine.
"use strict";

const EVERY = 5_000; // ms
const CHARTS_EVERY = 60_000;
const PATIENCE = 10_000; // a server whose stores both freeze takes a few seconds
const page = document.querySelector("[data-live]");
const alarm = page.querySelector(".unreachable");
let asking = false;
let timer;
let shownAt = Date.now();
let chartsAt = Date.now();

async function ask(url) {
  const answer = await fetch(url, { cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.type === "opaqueredirect") throw new Error("You are logged out: load this page again.");
  if (!answer.ok) throw new Error(`The server answers with ${answer.status}.`);
  return new DOMParser().parseFromString(await answer.text(), "text/html").body.children;
}

function change(shown, wanted) {
  if (shown.nodeName !== wanted.nodeName) return shown.replaceWith(wanted.cloneNode(true));
  if (shown.nodeType !== Node.ELEMENT_NODE) {
    if (shown.data !== wanted.data) shown.data = wanted.data;
    return;
  }
  for (const { name } of [...shown.attributes]) {
    if (!wanted.hasAttribute(name) && name !== "open") shown.removeAttribute(name); // `open` is what the reader has chosen
  }
  for (const { name, value } of wanted.attributes) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  const before = [...shown.childNodes];
  const after = [...wanted.childNodes];
  after.forEach((each, at) => (before[at] ? change(before[at], each) : shown.append(each.cloneNode(true))));
  before.slice(after.length).forEach((each) => each.remove());
}

async function renew() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const withCharts = page.dataset.charts && Date.now() - chartsAt >= CHARTS_EVERY;
    const answers = await Promise.all([ask(page.dataset.live), ...(withCharts ? [ask(page.dataset.charts)] : [])]);
    for (const part of answers.flatMap((each) => [...each])) change(document.getElementById(part.id), part);
    shownAt = Date.now();
    if (withCharts) chartsAt = shownAt;
    page.classList.remove("stale");
    alarm.hidden = true;
  } catch (error) {
    doubt();
    const why = ["TypeError", "TimeoutError"].includes(error.name) ? "The server cannot be reached." : error.message;
    const asOf = page.querySelector("time[datetime]").textContent;
    const text = `${why} What is shown is as of ${asOf} UTC.`;
    if (alarm.textContent !== text) alarm.textContent = text; // or it would be read out every few seconds
    alarm.hidden = false;
  }
  asking = false;
  if (!document.hidden) timer = setTimeout(renew, EVERY);
}

// Shows of all figures when they were asked for, and none as fine.
function doubt() {
  page.classList.add("stale");
  page.querySelector("[role=status]").textContent = "It is not known how things are now";
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) return;
  if (Date.now() - shownAt > 2 * EVERY) doubt();
  renew();
});
timer = setTimeout(renew, EVERY);

// Asks for the part of a run's page that changes, every second and a half, but not while nobody sees it. When the run has ended
// the page is loaded anew. Without it the page loads itself anew every three seconds.
"use strict";

const EVERY = 1500; // ms
const part = document.querySelector("[data-part]");
const told = document.getElementById("told");
const step = document.getElementById("step"); // read out where it changes: what is replaced is not
let waiting = 0;

async function look() {
  waiting = 0;
  try {
    const answer = await fetch(part.dataset.part, { headers: { Accept: "text/html" }, cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.text());
    told.textContent = "";
  } catch {
    told.textContent = "The server does not answer now; it is asked again.";
  }
  again();
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("run");
  if (!fresh) throw new Error("no run");
  if (fresh.dataset.state !== "running") return location.reload(); // what it shows until then stays as it is
  if (step.textContent !== fresh.dataset.step) step.textContent = fresh.dataset.step;
  const lines = document.querySelector(".lines");
  const inLines = lines !== null && document.activeElement === lines;
  part.replaceChildren(fresh);
  if (inLines) part.querySelector(".lines")?.focus({ preventScroll: true });
}

function again() {
  if (!waiting && !document.hidden) waiting = setTimeout(look, EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(waiting);
    waiting = 0;
  } else if (!waiting) {
    look();
  }
});
again();

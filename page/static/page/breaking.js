// The drawer in which embedded stores are stopped, frozen and started. It is on the page only where that is allowed.

import { label, look, onReport } from "./stores.js";

const DONE = { stop: "is being stopped", freeze: "is frozen", start: "is being started" };

const drawer = document.getElementById("breaking");
const opener = document.getElementById("break-open");

export function prepareBreaking() {
  if (!drawer) return;
  opener.addEventListener("click", () => toggle(drawer.hidden));
  document.getElementById("break-close").addEventListener("click", () => {
    toggle(false);
    opener.focus();
  });
  drawer.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    toggle(false);
    opener.focus();
  });
  document.getElementById("break").addEventListener("submit", (event) => {
    event.preventDefault();
    change(event.submitter.closest("fieldset"), event.submitter.value);
  });
  onReport(show);
}

function toggle(open) {
  drawer.hidden = !open;
  opener.setAttribute("aria-expanded", String(open));
  if (open) document.getElementById("break-close").focus();
}

async function change({ dataset }, verb) {
  const result = document.getElementById("break-result");
  const csrf = drawer.querySelector("[name=csrfmiddlewaretoken]").value;
  try {
    const url = dataset.change.replace("VERB", verb);
    const response = await fetch(url, { method: "POST", headers: { "X-CSRFToken": csrf } });
    if (!response.ok) throw new Error(`the service answered ${response.status}`);
    result.textContent = `${label(dataset.store)} ${DONE[verb]}.`;
  } catch (error) {
    result.textContent = `Nothing was done: ${error.message}.`;
  }
  look(true);
}

function show(report) {
  if (!report?.stores) return;
  const words = report.dual_write
    ? "Dual write is on: each turn is stored in both."
    : `Dual write is off: each turn is stored in one, ${label(report.primary)} if it can be reached. Answers that are` +
      " given without turns of a store that is out are marked, and nothing of them is lost.";
  document.getElementById("dual-write").textContent = words;
  for (const set of drawer.querySelectorAll("fieldset")) {
    set.dataset.state = report.stores[set.dataset.store]?.up ? "up" : "out";
  }
}

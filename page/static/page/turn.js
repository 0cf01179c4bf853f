// One turn in the thread: its question, its answer as it comes, a note, and what can be done with it.

import { render } from "./markdown.js";
import { label, labels } from "./stores.js";

const DRAWN = 80; // milliseconds between two looks of an answer that is being written
const NEAR = 120; // pixels from the end that count as the end
const BEHIND = "Earlier turns may be missing in this answer: a store that may have them cannot be read now.";
const WITHOUT = "Answered without the stopped question, which was not stored yet.";

const [thread, scroll] = ["thread", "scroll"].map((id) => document.getElementById(id));
const timers = new WeakMap(); // of buttons that read "Copied"
const template = document.getElementById("turn");

// `state` is "queued", "asking", "waiting" to ask again, "stopped" in the middle of a request, "held" by the visitor,
// "failed", or "answered".
export class Turn {
  constructor(text, key = "", on = {}) {
    this.item = template.content.firstElementChild.cloneNode(true);
    this.part = (selector) => this.item.querySelector(selector);
    Object.assign(this, { text, key, on, state: "queued", answer: "", drawAt: 0 });
    this.part(".question").textContent = text;
    this.item.addEventListener("click", (event) => this.clicked(event.target));
    thread.append(this.item);
  }

  // `again` is the text of its button.
  become(state, words, { kind = "quiet", again = "", discard = false } = {}) {
    this.state = state;
    this.note(words, kind);
    this.offer("again", Boolean(again), again);
    this.offer("discard", discard);
    if (["asking", "waiting"].includes(state)) this.item.setAttribute("aria-busy", "true");
    else this.item.removeAttribute("aria-busy");
  }

  // More of the answer; where it was stopped it is not shown.
  add(piece) {
    this.answer += piece;
    if (this.state === "stopped") return;
    this.become("asking", "Answering…");
    this.show(this.answer);
  }

  // `done` where no more of it comes.
  show(answer, done = false) {
    this.answer = answer;
    clearTimeout(this.drawing);
    const draw = () => {
      const atEnd = isAtEnd();
      this.drawAt = performance.now() + DRAWN + answer.length / 100;
      this.part(".answer").replaceChildren(render(this.answer));
      if (atEnd) toEnd();
    };
    const wait = done ? 0 : this.drawAt - performance.now();
    if (wait > 0) this.drawing = setTimeout(draw, wait);
    else draw();
    this.offer("copy", done);
  }

  // The stored answer, and where it is stored.
  showWhole(found) {
    this.show(found.answer, true);
    const missing = [found.context === "behind" && BEHIND, this.without && WITHOUT].filter(Boolean);
    this.become("answered", [...missing, noteOf(found)].join(" "), { kind: missing.length ? "behind" : "quiet" });
  }

  note(text, kind = "quiet") {
    const atEnd = isAtEnd();
    this.part(".note").textContent = text;
    this.item.dataset.kind = kind;
    if (atEnd) toEnd();
  }

  offer(action, is = true, words = "") {
    const button = this.part(`[data-do=${action}]`);
    button.hidden = !is;
    if (words) button.textContent = words;
  }

  clicked(target) {
    const action = target.dataset?.do;
    if (action === "copy") copy(this.answer, target);
    if (action === "again") this.on.again(this);
    if (action === "discard") this.on.discard(this);
  }
}

function isAtEnd() {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
}

export function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
}

function noteOf(answer) {
  const parts = [`${label(answer.store)} answered`];
  if (answer.stored_in) parts.push(`stored in ${labels(answer.stored_in)}`);
  if (answer.replayed) parts.push("stored before, shown again");
  return parts.join(" · ");
}

export async function copy(text, button) {
  button.dataset.words ??= button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied"; // plain http has no clipboard, except on localhost
  }
  clearTimeout(timers.get(button));
  timers.set(button, setTimeout(() => (button.textContent = button.dataset.words), 2000));
}

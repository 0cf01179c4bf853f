// The page: one conversation is open, and at most one question of it is being answered.
//
// A question is noted in this browser, with its Idempotency-Key, before it is sent. Whatever happens then - a reload,
// a lost connection, a store that is out - it is asked again with that key until its stored answer is here.

import * as api from "./api.js";
import { prepareBreaking } from "./breaking.js";
import * as conversations from "./conversations.js";
import { element } from "./markdown.js";
import { label, look, watchStores } from "./stores.js";
import { askForToken, withToken } from "./token.js";
import { Turn, copy, noteOf, toEnd } from "./turn.js";

const WAITS = [0.5, 1, 2, 4, 8, 8, 8]; // seconds before each time that a question is asked again by itself
const NOW_AND_THEN = ["store_unavailable", "not_persisted", "outcome_unknown", "idempotency_key_in_use", "busy"];
const REPEATED = new Set([api.LOST, ...NOW_AND_THEN]); // by itself; what else went wrong is for the visitor

const by = (id) => document.getElementById(id);
const [thread, scroll, question, composer] = ["thread", "scroll", "question", "composer"].map(by);

const ON = { again: resume, discard }; // what a turn's buttons do
let open = { id: "", turn: null, loading: true };

// --- Asking -----------------------------------------------------------------------------------------

function start(text) {
  const id = open.id || conversations.random();
  const turn = new Turn(text, conversations.random(), ON);
  conversations.asked(id, text, turn.key);
  if (!open.id) {
    open.id = id;
    history.replaceState(null, "", `#${id}`);
  }
  showHead();
  toEnd();
  answer(turn);
}

function resume(turn) {
  if (open.turn && open.turn !== turn && open.turn.state !== "stopped") return; // one at a time
  conversations.asked(open.id, turn.text, turn.key);
  answer(turn);
  question.focus();
}

function discard(turn) {
  conversations.change(open.id, { pending: null });
  open.turn = null;
  turn.item.remove();
  showHead();
  question.value ||= turn.text;
  fit();
  question.focus();
}

async function answer(turn) {
  const id = open.id;
  const aborting = new AbortController();
  open.turn = Object.assign(turn, { aborting, state: "asking" });
  for (const action of ["copy", "again", "discard"]) turn.offer(action, false);
  turn.item.setAttribute("aria-busy", "true");
  turn.note("Asking…");
  showAsking();
  try {
    finished(id, turn, await untilAnswered(id, turn, aborting.signal));
  } catch (error) {
    if (open.turn !== turn) return; // another conversation is open now; this one is asked again when it is opened
    if (error.name === "AbortError") stopped(turn);
    else failed(turn, error);
  } finally {
    turn.item.removeAttribute("aria-busy");
    showAsking();
  }
}

async function untilAnswered(id, turn, signal) {
  for (let tries = 0; ; tries += 1) {
    let text = "";
    const piece = (more) => {
      text += more;
      turn.note("Answering…");
      turn.show(text);
    };
    const { last_message_id: last } = conversations.find(id) ?? {};
    const asked = { question: turn.text, session: id, last, key: turn.key, signal };
    try {
      return await api.ask(asked, piece);
    } catch (error) {
      if (error.status === 401) await askForToken(error.message);
      else if (!REPEATED.has(error.code) || tries >= WAITS.length) throw error;
      else await pause(turn, error, WAITS[tries], signal);
    }
  }
}

// The same key makes it safe to ask again: the question is stored once, however often it arrives.
async function pause(turn, error, seconds, signal) {
  if (error.body?.answer) turn.show(error.body.answer);
  const words = error.message.replace(/ Try again\.$/, "");
  turn.note(`${words} Asking again with the same key…`, "waiting");
  look();
  await new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, Math.max(seconds, Math.min(error.retryAfter ?? 0, 10)) * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

function finished(id, turn, found) {
  conversations.given(id, found.message_id, turn.key);
  showList();
  if (open.turn !== turn) return;
  open.turn = null;
  turn.show(found.answer, true);
  const behind = found.context === "behind";
  const missing = "Answered without some earlier turns: the store that has them cannot be read now.";
  if (behind) turn.note(`${missing} ${noteOf(found)}`, "behind");
  else turn.note(noteOf(found));
  by("said").textContent = found.answer;
  if (behind || found.replayed) look();
}

function stopped(turn) {
  turn.state = "stopped";
  turn.note("Stopped. The service finishes the answer and stores it.", "stopped");
  turn.offer("again", true, "Show the whole answer");
}

function failed(turn, error) {
  turn.state = "failed";
  if (error.body?.answer) turn.show(error.body.answer);
  const unstored = "not_persisted" === error.code ? " This answer is not stored." : "";
  const wait = error.retryAfter > 1 ? ` Wait ${error.retryAfter} s.` : "";
  turn.note(`${error.message}${unstored}${wait}`, "failed");
  const gone = ["key_expired", "idempotency_key_reused", "invalid", "too_large"].includes(error.code);
  turn.offer("again", !gone, "Try again");
  turn.offer("discard");
  by("said").textContent = error.message;
  toEnd();
  look();
}

function showAsking() {
  const asking = open.turn?.state === "asking";
  const hadFocus = [by("stop"), by("send")].includes(document.activeElement);
  by("stop").hidden = !asking;
  by("send").hidden = asking;
  if (hadFocus) question.focus();
  by("delete").disabled = asking; // the turn would be stored after the deletion
  if (asking) by("said").textContent = "Asking";
}

// --- Conversations ----------------------------------------------------------------------------------

async function show(id) {
  open.turn?.aborting?.abort();
  open = { id, turn: null, loading: Boolean(id) };
  const here = open;
  thread.replaceChildren();
  showHead();
  showAsking();
  closeSide();
  if (!id) {
    focusQuestion();
    return;
  }
  const { pending } = conversations.find(id) ?? {};
  const found = await stored(id);
  if (open !== here) return;
  here.loading = false;
  for (const [asked, answered] of turnsOf(found?.messages ?? [])) {
    if (pending && asked.key === pending.key) continue; // asked again below, which says where it is stored
    const turn = new Turn(asked.content);
    turn.show(answered?.content ?? "", true);
  }
  if (found) addRead(found);
  if (found?.messages.length) noteGiven(id, found.messages);
  if (pending) answer(new Turn(pending.question, pending.key, ON));
  showHead();
  toEnd();
  focusQuestion();
}

// Not on a phone, where it would open the keyboard over what there is to read.
function focusQuestion() {
  if (matchMedia("(min-width: 50rem)").matches) question.focus();
}

function noteGiven(id, messages) {
  if (!conversations.find(id)?.title) conversations.change(id, { title: conversations.titleOf(messages[0].content) });
  conversations.given(id, messages.at(-1).id);
}

// What is stored of a conversation, null where there is nothing or it cannot be read now.
async function stored(id) {
  try {
    return await withToken(() => api.read(id));
  } catch (error) {
    if (open.id !== id) return null;
    if (error.status === 404) forgetLast(id);
    else cannotRead(error);
    return null;
  }
}

function forgetLast(id) {
  const known = conversations.find(id);
  if (!known) return;
  conversations.change(id, { last_message_id: null });
  const words = "Nothing is stored of this conversation any more: it was deleted, or its time is over.";
  if (known.last_message_id) addLine(words);
}

function cannotRead(error) {
  const again = element("button", { type: "button", onclick: () => show(open.id) }, "Try again");
  addLine(`${error.message} `, again);
  look();
}

function addRead(found) {
  const behind = found.context === "behind";
  const more = behind ? " A store that is out now may have more of it." : "";
  addLine(`Read from ${label(found.store)}.${more}`).dataset.kind = behind ? "behind" : "quiet";
}

function addLine(...children) {
  const line = element("li", { className: "line" }, ...children);
  thread.append(line);
  return line;
}

function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    if (message.role === "user") turns.push([message, null]);
    else if (turns.length) turns.at(-1)[1] = message;
  }
  return turns;
}

function showHead() {
  const known = conversations.find(open.id);
  by("title").textContent = known?.title || "New conversation";
  document.title = known?.title ? `${known.title} · onesource` : "onesource";
  by("menu").hidden = !known;
  by("empty").hidden = thread.childElementCount > 0 || Boolean(open.id);
  showList();
}

function showList() {
  const focused = document.activeElement?.dataset?.id;
  by("list").replaceChildren(
    ...conversations.all().map(({ id, title, pending }) => {
      const name = element("span", { className: "title" }, title || id);
      const button = element("a", { href: `#${id}` }, name);
      button.dataset.id = id;
      if (id === open.id) button.setAttribute("aria-current", "page");
      if (pending && id !== open.id) button.append(element("span", { className: "pending" }, "unfinished"));
      return element("li", {}, button);
    }),
  );
  if (focused) by("list").querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}

function fromAddress() {
  const id = location.hash.slice(1);
  return conversations.isId(id) ? id : "";
}

function begin() {
  if (location.hash) location.hash = "";
  else show("");
}

// --- What can be done with a conversation -----------------------------------------------------------

function dialog(name, prepare, act) {
  const box = by(`${name}-dialog`);
  box.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    box.close();
    act();
  });
  box.querySelector("[data-close]").addEventListener("click", () => box.close());
  by(name).addEventListener("click", () => {
    by("menu").open = false;
    prepare();
    box.showModal();
  });
}

async function removeOpen() {
  const { id } = open;
  open.turn?.aborting?.abort();
  try {
    await withToken(() => api.remove(id));
  } catch (error) {
    if (error.status !== 404) {
      addLine(`Not deleted: ${error.message}`).dataset.kind = "failed";
      toEnd();
      return;
    }
  }
  conversations.forget(id);
  begin();
}

async function exportOpen(as) {
  const { id } = open;
  by("menu").open = false;
  try {
    const blob = await withToken(() => api.exported(id, as));
    const href = URL.createObjectURL(blob);
    const ending = as === "json" ? "json" : "md";
    element("a", { href, download: `${id}.${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10_000);
  } catch (error) {
    addLine(`Not exported: ${error.message}`).dataset.kind = "failed";
    toEnd();
  }
}

// --- The page ---------------------------------------------------------------------------------------

function closeSide() {
  document.body.classList.remove("with-side");
  by("side-open").setAttribute("aria-expanded", "false");
}

function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

function prepare() {
  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = question.value;
    if (!text.trim() || open.loading || open.turn?.state === "asking") return;
    if (open.turn?.state === "failed") {
      open.turn.part("[data-do]:not([hidden])").focus(); // first things first: its key must not be lost
      return;
    }
    question.value = "";
    fit();
    start(text);
  });
  question.addEventListener("input", fit);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    composer.requestSubmit();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (by("menu").open) {
      by("menu").open = false;
      by("menu").querySelector("summary").focus();
    } else if (document.body.classList.contains("with-side")) {
      closeSide();
      by("side-open").focus();
    }
  });
  by("stop").addEventListener("click", () => open.turn?.aborting.abort());
  by("new").addEventListener("click", begin);
  by("side-open").addEventListener("click", () => {
    document.body.classList.add("with-side");
    by("side-open").setAttribute("aria-expanded", "true");
    by("side-close").focus();
  });
  by("side-close").addEventListener("click", () => {
    closeSide();
    by("side-open").focus();
  });
  scroll.addEventListener("pointerdown", closeSide);
  addEventListener("pointerdown", (event) => {
    if (!by("menu").contains(event.target)) by("menu").open = false;
  });
  thread.addEventListener("click", ({ target }) => {
    if (target.className === "copy-code") copy(target.closest("figure").querySelector("code").textContent, target);
  });
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", () => exportOpen(button.dataset.export));
  }
  dialog("rename", () => (by("rename-title").value = conversations.find(open.id)?.title ?? ""), () => {
    conversations.change(open.id, { title: by("rename-title").value.trim() });
    showHead();
  });
  dialog("delete", () => {}, removeOpen);
  by("forget")?.addEventListener("click", () => {
    api.token.forget();
    location.reload();
  });
  addEventListener("hashchange", () => fromAddress() !== open.id && show(fromAddress()));
  conversations.onChange(showHead);
}

prepare();
watchStores();
prepareBreaking();
if ("needsToken" in document.body.dataset && !api.token.get()) await askForToken();
show(fromAddress());

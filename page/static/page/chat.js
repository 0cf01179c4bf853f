// The page: one conversation is open, and at most one question of it is being answered.

import * as api from "./api.js";
import { Asking, inShort, showFailed, showHeld } from "./asking.js";
import { prepareBreaking } from "./breaking.js";
import * as conversations from "./conversations.js";
import { element } from "./markdown.js";
import * as questions from "./questions.js";
import { label, look, stores, watchStores } from "./stores.js";
import { announce, onAnnounced } from "./tabs.js";
import { askForToken, withToken } from "./token.js";
import { Turn, copy, toEnd } from "./turn.js";

const by = (id) => document.getElementById(id);
const [thread, scroll, question, composer] = ["thread", "scroll", "question", "composer"].map(by);

let open = opened("");

// --- Asking -----------------------------------------------------------------------------------------

function start(text) {
  const key = conversations.random();
  if (!open.id) {
    open.id = open.asking.session = conversations.random();
    history.replaceState(null, "", `#${open.id}`);
  }
  conversations.asked(open.id, text);
  questions.note(open.id, text, key);
  open.asking.add(new Turn(text, key, ON));
  showHead();
  toEnd();
}

function again(turn) {
  if (turn.state === "stopped") open.asking.show(turn);
  else {
    if (turn.usedUp) renew(turn);
    questions.note(open.id, turn.text, turn.key);
    open.asking.add(turn);
  }
  question.focus();
}

function renew(turn) {
  questions.settle(turn.key);
  Object.assign(turn, { key: conversations.random(), usedUp: false });
}

function discard(turn) {
  questions.settle(turn.key);
  announce("discarded", turn.key);
  turn.item.remove();
  showHead();
  question.value ||= turn.text;
  fit();
  question.focus();
}

// What a turn's buttons do.
const ON = { again, discard };

// A turn of the open conversation has begun or ended.
function changed(turn) {
  if (!turn.item.isConnected) return;
  if (turn.state === "answered") by("said").textContent = turn.answer;
  if (turn.state === "asking") by("said").textContent = "Asking";
  if (turn.state === "failed") {
    by("said").textContent = turn.problem;
    toEnd();
  }
  showAsking();
  showList();
}

function showAsking() {
  const asking = Boolean(open.asking.turn);
  const hadFocus = [by("stop"), by("send")].includes(document.activeElement);
  by("stop").hidden = !asking;
  by("send").hidden = asking;
  if (hadFocus) question.focus();
  by("delete").disabled = open.asking.running.size > 0; // the turn would be stored after the deletion
}

// --- Conversations ----------------------------------------------------------------------------------

function opened(id) {
  return { id, loading: Boolean(id), asking: new Asking(id, changed) };
}

async function show(id) {
  open.asking.leave();
  open = opened(id);
  const here = open;
  thread.replaceChildren();
  showHead();
  showAsking();
  closeSide();
  if (!id) {
    focusQuestion();
    return;
  }
  const found = await stored(id);
  if (open !== here) return;
  here.loading = false;
  showStored(found);
  for (const one of questions.of(id)) showUnanswered(one);
  showHead();
  toEnd();
  focusQuestion();
}

function showStored(found) {
  if (!found) return;
  const unanswered = new Map(questions.of(open.id).map((one) => [one.key, one]));
  for (const [asked, answered] of turnsOf(found.messages)) {
    const one = unanswered.get(asked.key);
    if (one && !isKept(one)) continue; // asked again below, which says where it is stored
    if (one) questions.settle(one.key);
    new Turn(asked.content).show(answered?.content ?? "", true);
  }
  addRead(found);
  if (found.messages.length) noteGiven(open.id, found.messages);
}

// Whether the visitor has to say that it is asked again.
function isKept({ held, failed }) {
  return Boolean(held || failed);
}

function showUnanswered({ question: text, key, held, failed, usedUp }) {
  const turn = new Turn(text, key, ON);
  if (held) showHeld(turn);
  else if (failed) showFailed(turn, failed, usedUp);
  else open.asking.add(turn);
}

// Not on a phone, where it would open the keyboard over what there is to read.
function focusQuestion() {
  if (matchMedia("(min-width: 50rem)").matches) question.focus();
}

function noteGiven(id, messages) {
  if (!conversations.find(id)?.title) conversations.asked(id, messages[0].content);
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

// What could not be read whole is read again when a store is back.
function readAgain() {
  if (open.incomplete && !open.asking.turn) show(open.id);
}

function cannotRead(error) {
  const again = element("button", { type: "button", onclick: () => show(open.id) }, "Try again");
  addLine(`${inShort(error)} `, again);
  open.incomplete = true;
  look();
}

function addRead(found) {
  const behind = found.context === "behind";
  const more = behind ? " A store that is out now may have more of it." : "";
  open.incomplete = behind;
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
  const unfinished = new Set(questions.all().map((one) => one.session));
  by("list").replaceChildren(
    ...conversations.all().map(({ id, title }) => {
      const name = element("span", { className: "title" }, title || id);
      const button = element("a", { href: `#${id}` }, name);
      button.dataset.id = id;
      if (id === open.id) button.setAttribute("aria-current", "page");
      if (id !== open.id && unfinished.has(id)) button.append(element("span", { className: "pending" }, "unfinished"));
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
  try {
    await withToken(() => api.remove(id));
  } catch (error) {
    if (error.status !== 404) {
      addLine(`Not deleted: ${inShort(error)}`).dataset.kind = "failed";
      toEnd();
      return;
    }
  }
  forget(id);
  announce("deleted", id);
  begin();
}

function forget(id) {
  for (const { key } of questions.of(id)) questions.settle(key);
  conversations.forget(id);
}

function deletedElsewhere(id) {
  forget(id); // this tab may have written its list at the same time
  if (id !== open.id) return showList();
  open.asking.deleted = true;
  history.replaceState(null, "", location.pathname);
  show("");
  addLine("This conversation was deleted in another tab.");
  showHead();
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
    addLine(`Not exported: ${inShort(error)}`).dataset.kind = "failed";
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
    if (!text.trim() || open.loading) return;
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
  by("stop").addEventListener("click", () => open.asking.stop());
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
    const title = by("rename-title").value.trim();
    if (title) conversations.change(open.id, { title });
    showHead();
  });
  dialog("delete", () => {}, removeOpen);
  by("forget")?.addEventListener("click", () => {
    api.token.forget();
    location.reload();
  });
  addEventListener("hashchange", () => fromAddress() !== open.id && show(fromAddress()));
  conversations.onChange(showHead);
  onAnnounced("deleted", deletedElsewhere);
  onAnnounced("discarded", (key) => open.asking.discarded(key));
  stores.addEventListener("usable", readAgain);
  for (const { session, question: text } of questions.all()) {
    if (!conversations.find(session)) conversations.asked(session, text); // another tab wrote the list at the same time
  }
}

prepare();
watchStores();
prepareBreaking();
if ("needsToken" in document.body.dataset && !api.token.get()) await askForToken();
show(fromAddress());

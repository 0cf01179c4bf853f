// The questions of the open conversation, asked one after another until each is stored, failed, or held by the visitor.
//
// A question is noted in this browser, with its Idempotency-Key, before it is sent. Whatever happens then - a reload,
// a lost connection, a store that is out - it is asked again with that key until its stored answer is here.

import * as api from "./api.js";
import * as conversations from "./conversations.js";
import * as questions from "./questions.js";
import { look, stores } from "./stores.js";
import { askForToken } from "./token.js";

const WAITS = [0.5, 1, 2, 4, 8, 15]; // seconds before a question is asked again by itself, the last again and again
const OUT = ["store_unavailable", "issuer_unavailable", "not_persisted", "outcome_unknown"];
const REPEATED = new Set([api.LOST, ...OUT, "idempotency_key_in_use", "busy"]); // by itself; what else went wrong is for the visitor
const STOPPED = { kind: "stopped", again: "Show the whole answer" };
const FINISHES = "Stopped. The service finishes the answer and stores it.";
const SENT = "Stopped. The question was sent: the service stores it with its answer if it can.";
const HELD = "Stopped. The question is kept in this browser, and not asked by itself.";

export class Asking {
  // `changed` is called when a turn has begun or ended, with the turn and what it ended with: an answer or a Problem.
  constructor(session, changed) {
    Object.assign(this, { session, changed, turn: null, queue: [], running: new Set(), leaving: new AbortController() });
    this.deleted = false;
  }

  // Another conversation is opened. What a deleted one is still answered is deleted too, once it is stored.
  leave() {
    if (!this.deleted) this.leaving.abort();
  }

  // Ask it when those before it are answered, failed or stopped.
  add(turn) {
    if (this.turn) turn.become("queued", "Asked after the question before it.");
    this.queue.push(turn);
    this.next();
  }

  // The visitor wants no more of the turn that is being asked.
  stop() {
    const { turn } = this;
    if (turn.state === "waiting") return turn.endWait();
    turn.become("stopped", turn.answer ? FINISHES : SENT, STOPPED);
    this.free(turn);
  }

  // Another tab has discarded a question. One that is being answered is stored all the same.
  discarded(key) {
    const turn = [this.turn, ...this.queue].find((one) => one?.key === key);
    if (!turn || turn.state === "asking") return;
    this.queue = this.queue.filter((one) => one !== turn);
    if (turn.state === "waiting") turn.endWait("discard");
    else turn.item.remove();
  }

  // Show what was stopped, if it is being answered or is answered.
  show(turn) {
    if (turn.found) return turn.showWhole(turn.found);
    this.turn ??= turn;
    turn.become("asking", turn.answer ? "Answering…" : "Asking…");
    turn.show(turn.answer);
    this.changed(turn);
  }

  next() {
    if (this.turn || this.deleted || !this.queue.length) return;
    this.turn = this.queue.shift();
    this.answer(this.turn);
    this.changed(this.turn);
  }

  free(turn) {
    if (this.turn === turn) this.turn = null;
    this.changed(turn);
    this.next();
  }

  async answer(turn) {
    turn.offer("copy", false);
    turn.become("asking", "Asking…");
    this.running.add(turn);
    try {
      const found = await this.untilAnswered(turn);
      if (found) this.finished(turn, found);
    } catch (error) {
      if (this.leaving.signal.aborted) return; // another conversation is open; it is asked again when this one is opened
      failed(turn, error);
      look();
    } finally {
      this.running.delete(turn);
    }
    this.free(turn);
    if (turn.state === "discarded") turn.item.remove();
  }

  // null where the visitor holds or has discarded it, or has deleted the conversation.
  async untilAnswered(turn) {
    const { signal } = this.leaving;
    for (let tries = 0; !this.deleted; tries += 1) {
      turn.answer = "";
      turn.without = this.running.size > 1; // the service reads what is stored now, without a turn in flight
      const { last_message_id: last } = conversations.find(this.session) ?? {};
      try {
        const asked = { question: turn.text, session: this.session, last, key: turn.key, signal };
        return await api.ask(asked, (more) => turn.add(more));
      } catch (error) {
        if (error.status === 401) await askForToken(error.message);
        else if (!REPEATED.has(error.code)) throw error;
        else if (turn.state === "stopped") return hold(turn);
        else {
          const ended = await pause(turn, error, WAITS[Math.min(tries, WAITS.length - 1)], signal);
          if (ended === "stop") return hold(turn);
          if (ended === "discard") return discarded(turn);
          if (ended === "usable") tries = -1;
        }
      }
    }
    return null;
  }

  finished(turn, found) {
    if (this.deleted) return void api.remove(this.session).catch(() => {});
    conversations.given(this.session, found.message_id);
    questions.settle(turn.key);
    turn.found = found;
    if (turn.state !== "stopped") turn.showWhole(found);
    else turn.become("stopped", "Stopped. The answer is stored.", STOPPED);
    if (found.context === "behind" || found.replayed) look();
  }
}

function discarded(turn) {
  turn.state = "discarded";
  return null;
}

function hold(turn) {
  questions.keep(turn.key, { held: true });
  showHeld(turn);
  return null;
}

export function showHeld(turn) {
  turn.become("held", HELD, { kind: "stopped", again: "Try again", discard: true });
}

function failed(turn, error) {
  if (error.body?.answer) turn.show(error.body.answer);
  const usedUp = ["key_expired", "idempotency_key_reused"].includes(error.code);
  const words = inShort(error);
  questions.keep(turn.key, { failed: words, usedUp });
  const wait = error.retryAfter > 1 ? ` Wait ${error.retryAfter} s.` : "";
  showFailed(turn, words + wait, usedUp);
}

// Its key is `usedUp` where the service refuses it for good.
export function showFailed(turn, words, usedUp) {
  Object.assign(turn, { problem: words, usedUp });
  turn.become("failed", words, { kind: "failed", again: "Try again", discard: true });
}

// Without what a button offers.
export function inShort(error) {
  return error.message.replace(/ Try again\.$/, "");
}

// Wait before it is asked again; return what ended that: "time", "usable" stores, or "stop" by the visitor. The same key
// makes it safe to ask again: the question is stored once, however often it arrives.
async function pause(turn, error, seconds, signal) {
  if (error.body?.answer) turn.show(error.body.answer);
  turn.become("waiting", `${inShort(error)} Asking again with the same key…`, { kind: "waiting" });
  look();
  const over = new AbortController();
  const ended = await new Promise((resolve) => {
    setTimeout(resolve, Math.max(seconds, Math.min(error.retryAfter ?? 0, 10)) * 1000, "time");
    turn.endWait = (how = "stop") => resolve(how);
    stores.addEventListener("usable", () => resolve("usable"), { signal: over.signal });
    signal.addEventListener("abort", resolve, { signal: over.signal });
  });
  over.abort();
  signal.throwIfAborted();
  if (!["stop", "discard"].includes(ended)) turn.state = "asking";
  return ended;
}

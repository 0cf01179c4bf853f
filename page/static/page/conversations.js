// The conversations of this browser, in localStorage: id, title, the last message_id that was given, and the question
// that is not known to be answered yet, with its key. What was said is in the service's stores only.

const NAME = "onesource.conversations";
const TITLE = 60; // characters of the first question

// Read each time: another tab may have changed it.
export function all() {
  try {
    const found = JSON.parse(localStorage.getItem(NAME));
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

export function find(id) {
  return all().find((one) => one.id === id);
}

export function change(id, fields) {
  const before = find(id);
  if (!before) save([{ id, title: "", last_message_id: null, pending: null, ...fields }, ...all()]);
  else save(all().map((one) => (one.id === id ? { ...one, ...fields } : one)));
}

// Note a question that is about to be asked; its conversation is the newest.
export function asked(id, question, key) {
  const title = find(id)?.title || titleOf(question);
  change(id, { title, pending: { key, question } });
  save([find(id), ...all().filter((one) => one.id !== id)].filter(Boolean));
}

export function forget(id) {
  save(all().filter((one) => one.id !== id));
}

// Note the last message that was given, the later of both: ids sort by time, and an older answer may be shown again.
export function given(id, messageId, key = "") {
  const { last_message_id: before, pending } = find(id) ?? {};
  const last = messageId > (before ?? "") ? messageId : before;
  change(id, { last_message_id: last, pending: pending?.key === key ? null : (pending ?? null) });
}

export function titleOf(question) {
  const line = question.trim().split("\n")[0];
  return line.length > TITLE ? `${line.slice(0, TITLE)}…` : line;
}

export function isId(text) {
  return /^[A-Za-z0-9._-]{1,128}$/.test(text);
}

// Not crypto.randomUUID: there is none on plain http, except on localhost.
export function random() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function onChange(call) {
  addEventListener("storage", (event) => event.key === NAME && call());
}

function save(list) {
  try {
    localStorage.setItem(NAME, JSON.stringify(list));
  } catch {
    // Full or forbidden: the list is then as it was, and the conversation goes on.
  }
}

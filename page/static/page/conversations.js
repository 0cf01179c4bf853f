// The conversations of this browser, in localStorage: id, title, and the last message_id that was given. What was said
// is in the service's stores only.

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

// Nothing where it was deleted, by another tab maybe.
export function change(id, fields) {
  save(all().map((one) => (one.id === id ? { ...one, ...fields } : one)));
}

// A question of it was asked: it is the newest. Only this adds one to the list.
export function asked(id, question) {
  const found = find(id) ?? { id, title: "", last_message_id: null };
  save([{ ...found, title: found.title || titleOf(question) }, ...all().filter((one) => one.id !== id)]);
}

export function forget(id) {
  save(all().filter((one) => one.id !== id));
}

// Note the last message that was given, the later of both: ids sort by time, and an older answer may be shown again.
export function given(id, messageId) {
  if (messageId > (find(id)?.last_message_id ?? "")) change(id, { last_message_id: messageId });
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
  addEventListener("storage", (event) => event.key?.startsWith("onesource.") && call());
}

function save(list) {
  try {
    localStorage.setItem(NAME, JSON.stringify(list));
  } catch {
    // Full or forbidden: the list is then as it was, and the conversation goes on.
  }
}

// The questions that are not known to be answered, each with its Idempotency-Key. Each is an item of its own in
// localStorage, so that no tab overwrites what another has noted.

const PREFIX = "onesource.question.";

// Oldest first.
export function all() {
  return Object.keys(localStorage)
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => ({ key: name.slice(PREFIX.length), ...read(name) }))
    .filter((one) => one.session && one.question)
    .sort((one, other) => one.at - other.at);
}

export function of(session) {
  return all().filter((one) => one.session === session);
}

// Note a question that is about to be asked, and asked again by itself until it is settled.
export function note(session, question, key) {
  write(key, { session, question, at: read(PREFIX + key)?.at ?? Date.now() });
}

// Note that it is not asked by itself any more.
export function keep(key, fields) {
  const found = read(PREFIX + key);
  if (found) write(key, { ...found, ...fields });
}

// It is stored, or nobody wants it any more.
export function settle(key) {
  localStorage.removeItem(PREFIX + key);
}

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

function write(key, fields) {
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify(fields));
  } catch {
    // Full or forbidden: it is then asked by this tab only.
  }
}

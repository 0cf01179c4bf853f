// The calls of the API. Every failure is a Problem, with the code of the API's error or one of the codes below.

const { ask: ASK, conversations: CONVERSATIONS } = document.body.dataset;
const TOKEN = "onesource.token";

export const LOST = "connection_lost";

// What a visitor reads in place of the detail, which is for who writes a client.
const WORDS = {
  scope_missing: "Your token does not allow this. Ask whoever gave it to you for one that does.",
  tenant_full: "All the room for your conversations is used. Delete some: a few minutes later there is room again.",
  throttled: "These are more questions than you may ask in this time.",
  too_many_asks: "Too many of your questions are being answered at once. Try again.",
  issuer_unavailable: "Your token cannot be checked at the moment.",
};

export class Problem extends Error {
  constructor(code, detail, status = 0, body = {}, retryAfter = 0) {
    super(detail);
    Object.assign(this, { code, status, body, retryAfter });
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

// The stored answer; `onPiece` gets its text as it comes. A 200 means that the turn is stored.
export async function ask({ question, session, last, key, signal }, onPiece) {
  const body = { question, session_id: session, stream: true };
  if (last) body.last_message_id = last;
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  const response = await call(ASK, { method: "POST", headers, body: JSON.stringify(body), signal });
  try {
    for await (const [name, data] of events(response.body)) {
      if (name === "delta") onPiece(data.text);
      if (name === "answer") return data;
      if (name === "error") throw new Problem(data.code, data.detail, 200, data);
    }
  } catch (error) {
    if (error instanceof Problem) throw error;
  }
  signal.throwIfAborted();
  throw new Problem(LOST, "The connection was lost in the middle of the answer.");
}

export async function read(session) {
  return (await call(address(session))).json();
}

export async function remove(session) {
  await call(address(session), { method: "DELETE" });
}

export async function exported(session, as) {
  return (await call(`${address(session)}export?as=${as}`)).blob();
}

// Raises a Problem of status 401 where the token is not valid.
export async function checkToken() {
  await call(`${CONVERSATIONS}?limit=1`);
}

// What /healthz reports, of an outage too; null where the service cannot be reached.
export async function health() {
  try {
    return await (await fetch("/healthz", { cache: "no-store" })).json();
  } catch {
    return null;
  }
}

function address(session) {
  return `${CONVERSATIONS}${encodeURIComponent(session)}/`;
}

async function call(url, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let response;
  try {
    response = await fetch(url, { ...options, headers, cache: "no-store" });
  } catch {
    options.signal?.throwIfAborted();
    throw new Problem(LOST, "The service cannot be reached.");
  }
  if (response.ok) return response;
  const error = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  const detail = WORDS[error.code] ?? error.detail ?? `The service answered ${response.status}.`;
  const code = error.code ?? (response.status >= 502 ? LOST : "error"); // a proxy has no code
  throw new Problem(code, detail, response.status, error, retryAfter);
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const lines = rest.slice(0, end).split("\n");
      rest = rest.slice(end + 2);
      const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
      yield [field("event"), JSON.parse(field("data"))];
    }
  }
}

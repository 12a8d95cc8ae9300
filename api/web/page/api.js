// The REST service, called as any client calls it. The key stays in sessionStorage: this tab, until it is closed.

const KEY = "thriftrag-key";

export class Problem extends Error {
  constructor(error, status) {
    super(error.message);
    this.code = error.code;
    this.hint = error.hint;
    this.field = error.field;
    this.requestId = error.request_id;
    this.status = status;
  }
}

export function key() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

export function path(...parts) {
  return `/v1/${parts.map(encodeURIComponent).join("/")}`;
}

function headers(more = {}) {
  return key() ? { Authorization: `Bearer ${key()}`, ...more } : more;
}

async function sent(method, url, { body, signal } = {}) {
  const init = { method, signal, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }) };
  if (body !== undefined) init.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!response.ok) throw refused(response.status, await response.text(), response.headers.get("Retry-After"));
  return response;
}

function unreachable() {
  return new Problem({ code: "unreachable", message: "The server does not answer.", hint: "Is it still running? Start it with `thriftrag serve`, then try again." }, 0);
}

function refused(status, text, retryAfter) {
  let error;
  try {
    ({ error } = JSON.parse(text));
  } catch {
    error = { code: `http_${status}`, message: `The server answered with status ${status}.`, hint: "" };
  }
  if (retryAfter && error.hint !== undefined) error.hint = `${error.hint} Come again in ${retryAfter} s.`.trim();
  const problem = new Problem(error, status);
  if (status === 401) window.dispatchEvent(new CustomEvent("key-wanted", { detail: problem }));
  return problem;
}

/** The JSON of an answer. Throws Problem. */
export async function call(method, url, options) {
  return (await sent(method, url, options)).json();
}

/** The events of a stream, each with `name` and `data`. Ends when the stream does; aborting the signal throws AbortError. */
export async function* events(method, url, options) {
  const response = await sent(method, url, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const found = parsed(block);
        if (found !== null) yield found;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) throw unreachable();     // the connection broke
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const found = { name: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) found.name = line.slice(7);
    else if (line.startsWith("data: ")) found.data += line.slice(6);
  }
  return found.data ? { name: found.name, data: JSON.parse(found.data) } : null;
}

/** Sends files; `onSent` hears the share that has gone out. XMLHttpRequest, for fetch tells nothing about that. */
export function upload(url, files, { onSent, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    for (const file of files) form.append("files", file, file.name);
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && onSent(event.loaded / event.total));
    request.upload.addEventListener("load", () => onSent(1));
    request.addEventListener("load", () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText));
      else reject(refused(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("Aborted", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// What several views share: the collection that is chosen, the settings that hold for it, and what was measured on it.

import { call, path } from "/page/api.js";

const CHOSEN = "thriftrag-collection";

export const state = { collections: [], collection: "", settings: null, frontier: null, failure: null };
/** Fires "changed" whenever any of it changed. */
export const changes = new EventTarget();

export function may(scope) {
  const scopes = state.settings?.key.scopes ?? [];
  return scopes.includes("admin") || scopes.includes(scope) || (scope === "read" && scopes.includes("write"));
}

export function chosen() {
  return state.collections.find((one) => one.name === state.collection) ?? null;
}

let reading = Promise.resolve();

/** Reads everything anew. Never throws: `state.failure` has what went wrong. */
export function refresh(name = state.collection || sessionStorage.getItem(CHOSEN) || "") {
  reading = read(name);
  return reading;
}

/** When what was last asked for is there. */
export function settled() {
  return reading;
}

async function read(name) {
  try {
    state.collections = (await call("GET", path("collections"))).collections;
    const known = (wanted) => state.collections.some((one) => one.name === wanted);
    const first = await call("GET", path("settings"));
    state.collection = known(name) ? name : known(first.collection) ? first.collection : state.collections[0]?.name ?? "";
    const query = `?collection=${encodeURIComponent(state.collection)}`;
    state.settings = state.collection && state.collection !== first.collection ? await call("GET", path("settings") + query) : first;
    state.frontier = state.collection ? await call("GET", path("frontier") + query) : null;
    state.failure = null;
    sessionStorage.setItem(CHOSEN, state.collection);
  } catch (error) {
    state.failure = error;
  }
  changes.dispatchEvent(new Event("changed"));
}

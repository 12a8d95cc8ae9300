// What a question may cost, before it is asked. Tokens are known exactly only afterwards, so everything here is an estimate.

const CHARACTERS_A_TOKEN = 4;
const STEPS = [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096];

/** The stops of the slider, the largest not over `most`. */
export function steps(most) {
  const found = STEPS.filter((step) => step <= most);
  return found.length ? found : [most];
}

export function nearest(stops, value) {
  return stops.reduce((best, stop, at) => (Math.abs(Math.log(stop / value)) < Math.abs(Math.log(stops[best] / value)) ? at : best), 0);
}

/** Prompt tokens besides the context. `instructions`: as counted in an earlier answer, or null. */
export function around(question, ask, instructions) {
  return Math.ceil(question.length / CHARACTERS_A_TOKEN) + (instructions ?? Math.ceil(ask.instruction_chars / CHARACTERS_A_TOKEN));
}

/** At most so many tokens and dollars: a full context and the longest answer. `usd` is null where no price is set. */
export function most(budget, { question, settings, instructions, maxCost }) {
  const { prices, ask } = settings;
  const prompt = budget + around(question, ask, instructions);
  const usd = (prompt * prices.prompt + ask.answer_tokens * prices.completion) / 1e6;
  const priced = prices.prompt > 0 || prices.completion > 0;
  return { tokens: prompt + ask.answer_tokens, usd: priced ? (maxCost ? Math.min(usd, maxCost) : usd) : null };
}

/** Context tokens of the passages that a rank-order fill takes, from the mean passage; null for an empty collection. */
export function naive(collection, ask) {
  return collection?.chunks ? Math.round((collection.tokens / collection.chunks) * Math.min(ask.naive_k, collection.chunks)) : null;
}

/** The measured budget next to this one: of the collection's own tuning, else of the last evaluation. Null where none was. */
export function measured(frontier, budget, selector) {
  for (const table of [frontier?.tuning, frontier?.evaluation]) {
    const curves = table?.groups[0]?.curves ?? [];
    const curve = [selector, "thrift"].map((name) => curves.find((one) => one.system.split(",")[0] === name)).find(Boolean);
    const points = (curve?.points ?? []).filter((point) => point.budget !== null);
    if (points.length) {
      const point = points[nearest(points.map((one) => one.budget), budget)];
      return { kind: table.kind, group: table.groups[0].name, system: curve.system, point };
    }
  }
  return null;
}

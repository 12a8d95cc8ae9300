// Numbers as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function count(value) {
  return whole.format(value);
}

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function number(value) {
  return Math.abs(value) >= 1000 ? whole.format(value) : short.format(value);
}

export function seconds(value) {
  if (value < 0.001) return "under 1 ms";
  if (value < 0.9995) return `${number(value * 1000)} ms`;
  return value < 120 ? `${value.toFixed(value < 10 ? 2 : 1)} s` : `${number(value / 60)} min`;
}

export function usd(value) {
  if (value === 0) return "$0";
  if (value >= 0.01) return `$${value.toFixed(2)}`;
  return value < 1e-6 ? "under $0.000001" : `$${value.toFixed(6).replace(/0+$/, "")}`;
}

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

export function bytes(value) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const step = value < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${number(value / 1000 ** step)} ${units[step]}`;
}

export function day(instant) {
  const found = new Date(instant);
  return Number.isNaN(found.getTime()) ? String(instant) : found.toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });
}

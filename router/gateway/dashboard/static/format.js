// Figures as a person reads them. Unknown is a dash, never zero.

export const DASH = "–";

export function seconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value === 0) return "0 s";
  if (value < 0.0995) return `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms`;
  if (value < 99.5) return `${value.toPrecision(3)} s`;
  return duration(value);
}

export function duration(value) {
  if (value === null || value === undefined) return DASH;
  if (value < 60) return `${Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.round((value % 86400) / 3600)} h`;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return DASH;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toPrecision(digits)} M`;
  if (size >= 10000) return `${(value / 1e3).toPrecision(digits)} k`;
  if (size >= 100) return Math.round(value).toString();
  return Number(value.toPrecision(digits)).toString();
}

export function percent(value, digits = 0) {
  if (value === null || value === undefined) return DASH;
  const text = (value * 100).toFixed(digits);
  // 99.96 % is not 100 %: a target that was missed must not look met.
  return value < 1 && Number(text) === 100 ? `${(100 - 10 ** -(digits + 1)).toFixed(digits + 1)} %` : `${text} %`;
}

export function factor(value) {
  return value === null || value === undefined ? DASH : `${value.toFixed(2)}×`;
}

export function dollars(value) {
  if (value === null || value === undefined) return DASH;
  return `$${value >= 100 ? Math.round(value) : value.toPrecision(3)}`;
}

// Groups are named gpu/engine/model: where all have one model, it is said by none.
export function groupName(groups) {
  const models = new Set(groups.map((g) => g.slice(g.lastIndexOf("/") + 1)));
  const short = groups.length > 0 && models.size === 1 && groups.every((g) => g.split("/").length > 2);
  return (g) => (short ? g.slice(0, g.lastIndexOf("/")) : g).replaceAll("/", " · ");
}

export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString();
}

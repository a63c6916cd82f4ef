// Formats numbers, and finds ticks and smoothed curves.

export function formatNumber(value, percent = false) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (percent) return `${trim((100 * value).toFixed(Math.abs(value) < 0.1 ? 1 : 0))} %`;
  const size = Math.abs(value);
  if (size >= 1e7 || (size && size < 1e-4)) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return trim(size >= 100 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toPrecision(3));
}

// With as many digits in each row of a column.
export function formatCell(value, percent = false) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (percent) return `${(100 * value).toFixed(1)} %`;
  return size >= 1000 ? Math.round(value).toLocaleString("en") : value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

// As short as it can be, for axes.
export function formatTick(value, percent = false) {
  const size = Math.abs(value);
  if (percent || size < 10_000) return formatNumber(value, percent);
  return size < 1e6 ? `${trim((value / 1e3).toFixed(1))}k` : size < 1e9 ? `${trim((value / 1e6).toFixed(1))}M` : value.toExponential(1);
}

const trim = (text) => (text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text);

// About `count` round numbers from `low` to `high`.
export function findTicks(low, high, count, whole = false) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) {
    ticks.push(Number(tick.toPrecision(12)));
  }
  return ticks;
}

// An exponential mean of the values so far, each weighing `weight` times the next; gaps stay gaps.
export function smooth(values, weight) {
  if (!weight) return values;
  let sum = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + value;
    total = weight * total + 1;
    return sum / total;
  });
}

export function findRange(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? null : [low, high];
}

export const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);

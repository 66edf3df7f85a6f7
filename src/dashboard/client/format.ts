/** Formats an age as kubectl does: `90s`, `5m`, `3h`, `2d`. */
export function ageText(since: string | number, nowMs = Date.now()): string {
  const seconds = Math.max(0, Math.floor((nowMs - new Date(since).getTime()) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** Formats bytes with three digits: `4.25 MiB`, `128 MiB`. */
export function bytesText(bytes: number | undefined): string {
  if (bytes === undefined || !Number.isFinite(bytes)) return '–';
  let [value, unit] = [Math.abs(bytes), 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${bytes < 0 ? '−' : ''}${value.toFixed(digits)} ${units[unit] ?? ''}`;
}

/** Formats processor use in cores: `0.02`, `1.50`. */
export const coresText = (cores: number | undefined): string =>
  cores === undefined || !Number.isFinite(cores) ? '–' : cores.toFixed(2).replace('-', '−');

export const secondsText = (seconds: number | undefined): string =>
  seconds === undefined || !Number.isFinite(seconds) ? '–' : timeText(seconds * 1000);

export const timeText = (ms: number): string =>
  ms >= 9_995 ? `${(ms / 1000).toFixed(1)} s` : ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${Math.round(ms)} ms`;

/** Formats a time of day for events. */
export const clockText = (at: string): string => new Date(at).toLocaleTimeString('en-GB');

// oxlint-disable-next-line no-control-regex -- what terminals obey is made of these
const sequences = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\|$)|[ -/]*[0-~])|\r(?=\n|$)/g;
/** Control characters except tabs and line feeds, and those that change the direction of text. */
const controls = /(?![\t\n])[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;

/**
 * A guest's text as lines for a page: sequences that would move a terminal's cursor, set its title or its clipboard are
 * left out, other control characters are shown as dots.
 */
export const plainText = (text: string): string => text.replaceAll(sequences, '').replaceAll(controls, '·');

import xterm from '@xterm/headless';
import type { Cast } from './cast.ts';

/** Sizes in pixels of the picture. */
const cell = { width: 8.4, height: 18 };
const margin = 16;
/** Changes within this time are one frame. */
const frameMs = 80;
/** Longer pauses are shortened to this. */
const maxPauseMs = 2500;
/** Duration of the last frame. */
const lastFrameMs = 6000;
const background = '#1b1f24';
const foreground = '#d7dce2';
/** The first 8 colours of a terminal, then the bright ones. */
const palette = [
  ...['#1b1f24', '#f47067', '#57ab5a', '#c69026', '#539bf5', '#b083f0', '#39c5cf', '#d7dce2'],
  ...['#768390', '#ff938a', '#6bc46d', '#daaa3f', '#6cb6ff', '#dcbdfb', '#56d4dd', '#ffffff'],
];

interface Frame {
  readonly atMs: number;
  /** SVG of each row, without its place; empty for a blank row. */
  readonly lines: readonly string[];
}

/**
 * Returns an SVG that plays the recording in a loop in any browser. Readers who prefer less motion see the last frame.
 */
export async function renderSvg(cast: Cast): Promise<string> {
  const frames = await framesOf(cast);
  const width = Math.round(cast.columns * cell.width + 2 * margin);
  const height = cast.rows * cell.height + 2 * margin;
  const totalMs = (frames.at(-1)?.atMs ?? 0) + lastFrameMs;
  const lines = [...new Set(frames.flatMap((frame) => frame.lines))].filter((line) => line !== '');
  const idOf = new Map(lines.map((line, at) => [line, `l${at}`]));
  const shift = (at: number) => `translateX(${-at * width}px)`;
  const keys = frames.map(({ atMs }, at) => `${percent(atMs / totalMs)}{transform:${shift(at)}}`);
  const last = frames.length - 1;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`,
    '<title>Recorded terminal</title>',
    '<style>',
    `text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:${foreground};white-space:pre}`,
    `@keyframes play{${keys.join('')}100%{transform:${shift(last)}}}`,
    `.play{animation:play ${totalMs}ms steps(1,end) infinite}`,
    `@media (prefers-reduced-motion){.play{animation:none;transform:${shift(last)}}}`,
    '</style>',
    `<rect width="100%" height="100%" rx="8" fill="${background}"/>`,
    `<defs>${lines.map((line) => `<text id="${idOf.get(line)}" xml:space="preserve">${line}</text>`).join('\n')}</defs>`,
    '<g class="play">',
    ...frames.map((frame, at) => {
      const uses = frame.lines.flatMap((line, row) => {
        const y = margin + (row + 0.75) * cell.height;
        return line === '' ? [] : [`<use href="#${idOf.get(line)}" x="${at * width + margin}" y="${y}"/>`];
      });
      return uses.join('');
    }),
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

const percent = (part: number) => `${Math.round(part * 1e6) / 1e4}%`;

async function framesOf({ columns, rows, outputs }: Cast): Promise<Frame[]> {
  const terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true });
  const frames: Frame[] = [];
  let pausedMs = 0;
  for (const [at, { atMs: recordedMs, text }] of outputs.entries()) {
    pausedMs += Math.max(0, recordedMs - (outputs[at - 1]?.atMs ?? 0) - maxPauseMs);
    const atMs = recordedMs - pausedMs;
    await new Promise<void>((resolve) => terminal.write(text, resolve));
    const next = outputs[at + 1];
    const begunAt = frames.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY;
    if (next !== undefined && next.atMs - recordedMs < frameMs && atMs - begunAt < 2 * frameMs) continue;
    frames.push({ atMs: frames.length === 0 ? 0 : atMs, lines: screenOf(terminal, rows) });
  }
  terminal.dispose();
  return frames;
}

function screenOf(terminal: xterm.Terminal, rows: number): string[] {
  const buffer = terminal.buffer.active;
  return Array.from({ length: rows }, (_, row) => {
    const isCursor = row === buffer.cursorY;
    return lineOf(terminal, buffer.baseY + row, isCursor ? buffer.cursorX : undefined);
  });
}

/** Runs of cells that look alike, as spans; a cursor is a block. */
function lineOf(terminal: xterm.Terminal, y: number, cursorX: number | undefined): string {
  const line = terminal.buffer.active.getLine(y);
  if (line === undefined) return '';
  const runs: { style: string; text: string }[] = [];
  for (let x = 0; x < line.length; x += 1) {
    const found = line.getCell(x);
    if (found === undefined || found.getWidth() === 0) continue;
    const isCursor = x === cursorX;
    const text = isCursor ? '█' : found.getChars() || ' ';
    const colour = found.isFgPalette() ? palette[found.getFgColor()] : undefined;
    const style = [
      ...(colour === undefined || isCursor ? [] : [`fill="${colour}"`]),
      ...(found.isBold() !== 0 && !isCursor ? ['font-weight="bold"'] : []),
    ].join(' ');
    const last = runs.at(-1);
    if (last?.style === style) last.text += text;
    else runs.push({ style, text });
  }
  const end = runs.at(-1);
  if (end?.style === '') end.text = end.text.trimEnd();
  return runs
    .filter(({ text }) => text !== '')
    .map(({ style, text }) => (style === '' ? escapeText(text) : `<tspan ${style}>${escapeText(text)}</tspan>`))
    .join('');
}

const escapeText = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

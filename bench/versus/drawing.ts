import { judge, shown } from './judge.ts';
import type { Result } from './result.ts';

const width = 900;
const rowHeight = 26;
const top = 56;
const labelWidth = 470;
const plotWidth = width - labelWidth - 60;
const colours = { met: '#228833', missed: '#cc3311', target: '#222222', line: '#dddddd' };
const ticks = [0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64];

/** `docs/performance.svg`: each ratio that has a target as a point with its quartiles, and the target, by the logarithm. */
export function performanceDrawing(result: Result): string {
  const rows = judge(result).flatMap((verdict) =>
    verdict.ratio === undefined ? [] : [{ ...verdict, ...verdict.ratio }],
  );
  const all = rows
    .flatMap(({ spread, bound }) => [spread.from, spread.to, spread.median, bound])
    .filter((one) => one > 0);
  const [least, most] = [Math.min(0.5, ...all) / 1.3, Math.max(2, ...all) * 1.3];
  const x = (ratio: number) =>
    labelWidth + (Math.log(Math.max(ratio, least) / least) / Math.log(most / least)) * plotWidth;
  const at = (ratio: number) => x(ratio).toFixed(1);
  const bottom = top + Math.max(1, rows.length) * rowHeight;
  const grid = ticks
    .filter((tick) => tick > least && tick < most)
    .flatMap((tick) => [
      `<line x1="${at(tick)}" x2="${at(tick)}" y1="${top}" y2="${bottom}" stroke="${colours.line}"/>`,
      `<text x="${at(tick)}" y="${bottom + 16}" text-anchor="middle">${tick} ×</text>`,
    ]);
  const marks = rows.map(({ what, who, target, isMet, spread, bound }, index) => {
    const y = top + (index + 0.5) * rowHeight;
    const colour = isMet ? colours.met : colours.missed;
    const label = `${what}; ${who}, ${target}`;
    return [
      `<text x="${labelWidth - 10}" y="${y + 4}" text-anchor="end">${escape(label)}</text>`,
      `<line x1="${at(spread.from)}" x2="${at(spread.to)}" y1="${y}" y2="${y}" stroke="${colour}" stroke-width="3"/>`,
      `<circle cx="${at(spread.median)}" cy="${y}" r="5" fill="${colour}"/>`,
      `<line x1="${at(bound)}" x2="${at(bound)}" y1="${y - 9}" y2="${y + 9}" stroke="${colours.target}" stroke-width="2"/>`,
      `<text x="${(Math.max(x(spread.to), x(spread.median)) + 9).toFixed(1)}" y="${y - 4}" font-size="10" fill="${colour}">${shown(spread.median)}</text>`,
    ].join('\n');
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${bottom + 30}" font-family="sans-serif" font-size="11">`,
    `<rect width="${width}" height="${bottom + 30}" fill="white"/>`,
    '<text x="10" y="22" font-size="15">PodVM divided by a peer, or by another figure of its own, of the same run</text>',
    `<text x="10" y="40">point: median, with quartiles; bar: target; <tspan fill="${colours.met}">met</tspan>, <tspan fill="${colours.missed}">missed</tspan></text>`,
    ...grid,
    ...marks,
    '</svg>\n',
  ].join('\n');
}

const escape = (text: string): string => text.replaceAll('`', '').replaceAll('&', '&amp;').replaceAll('<', '&lt;');

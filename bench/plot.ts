import type { Figures } from './figures.ts';

const width = 720;
const rowHeight = 28;
const labelWidth = 260;
const barWidth = width - labelWidth - 150;

/** Units that share an axis, by the ends of names; the first that a suite has is drawn. */
const units = [
  { suffix: 'Mbps', text: 'Mbit/s' },
  { suffix: 'MBps', text: 'MB/s' },
  { suffix: 'Ms', text: 'ms' },
] as const;

/** Medians as bars with their span from minimum to maximum, an SVG document; of one unit, and of no ratios. */
export function plot(title: string, figures: Figures): string {
  const all = Object.entries(figures).filter(([name]) => !name.startsWith('ratio.'));
  const unit = units.find(({ suffix }) => all.some(([name]) => name.endsWith(suffix))) ?? units[2];
  const rows = all.filter(([name]) => name.endsWith(unit.suffix));
  const largest = Math.max(1, ...rows.map(([, { max }]) => max));
  const x = (value: number) => labelWidth + (value / largest) * barWidth;
  const bars = rows.map(([name, { min, median, max }], index) => {
    const y = 40 + index * rowHeight;
    const middle = y + rowHeight / 2;
    return [
      `<text x="${labelWidth - 8}" y="${middle + 4}" text-anchor="end">${name}</text>`,
      `<rect x="${labelWidth}" y="${y + 4}" width="${(x(median) - labelWidth).toFixed(1)}" height="${rowHeight - 8}" fill="#4477aa"/>`,
      `<line x1="${x(min).toFixed(1)}" x2="${x(max).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#222" stroke-width="2"/>`,
      `<text x="${(x(max) + 6).toFixed(1)}" y="${middle + 4}">${median} ${unit.text}</text>`,
    ].join('\n');
  });
  const height = 50 + rows.length * rowHeight;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    `<text x="8" y="22" font-size="15">${title}: medians, and the span from minimum to maximum</text>`,
    ...bars,
    '</svg>\n',
  ].join('\n');
}

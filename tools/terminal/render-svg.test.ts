import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { parseCast } from './cast.ts';
import { renderSvg } from './render-svg.ts';

const docs = join(import.meta.dirname, '../../docs');

it('docs/terminal.svg shows docs/terminal.cast', async () => {
  const cast = parseCast(await readFile(join(docs, 'terminal.cast'), 'utf8'));
  assert.equal(await readFile(join(docs, 'terminal.svg'), 'utf8'), await renderSvg(cast), 'run `npm run docs`');
});

it('renderSvg() makes a frame of each change, and shows it at its time', async () => {
  const outputs = [
    { atMs: 0, text: '$ ' },
    { atMs: 1000, text: 'a<b\r\n' },
    { atMs: 2000, text: '\u001b[31mred\u001b[0m' },
  ];
  const svg = await renderSvg({ columns: 20, rows: 2, outputs });
  assert.deepEqual(
    [...svg.matchAll(/(\d+(?:\.\d+)?)%\{transform/g)].map(([, at]) => Number(at)),
    [0, 12.5, 25, 100],
  );
  assert.match(svg, /\$ a&lt;b/);
  assert.match(svg, /<tspan fill="#f47067">red<\/tspan>/);
});

it('renderSvg() shortens a long pause', async () => {
  const play = async (pauseMs: number) => {
    const outputs = [
      { atMs: 0, text: 'a' },
      { atMs: pauseMs, text: 'b' },
    ];
    return await renderSvg({ columns: 20, rows: 1, outputs });
  };
  assert.equal(await play(60_000), await play(10_000));
  assert.notEqual(await play(1000), await play(2000));
});

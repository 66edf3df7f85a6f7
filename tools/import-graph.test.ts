import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, it } from 'node:test';
import { describe, draw } from './graph.ts';
import { fileOf, group, layerOf, readImports, roomOf, shapeOf } from './import-graph.ts';
import { layers } from './layers.ts';
import { repo } from './unit-tests.ts';

const planted = await mkdtemp(join(tmpdir(), 'podvm-graph-'));
after(() => rm(planted, { recursive: true }));
const files = {
  'low/base.ts': 'export const base = 1;\n',
  'high/top.ts': "import { base } from '#low/base.ts';\nexport * from './room/left.ts';\nexport const top = base;\n",
  'high/room/left.ts': "import type { Right } from './right.ts';\nexport const left = (it: Right) => it;\n",
  'high/room/right.ts': "export type Right = 1;\nexport const later = () => import('./left.ts');\n",
  'high/top.test.ts': "import { top } from './top.ts';\nexport const tested = top;\n",
};
for (const [name, text] of Object.entries(files)) {
  await mkdir(join(planted, 'src', dirname(name)), { recursive: true });
  await writeFile(join(planted, 'src', name), text);
}

it('readImports() sees imports of values, of types, at run time and what is exported again, and no tests', async () => {
  const graph = await readImports(planted);
  assert.deepEqual(
    [...graph].map(([from, targets]) => `${from}: ${[...targets].join(' ')}`),
    [
      'high/room/left.ts: high/room/right.ts',
      'high/room/right.ts: high/room/left.ts',
      'high/top.ts: high/room/left.ts low/base.ts',
      'low/base.ts: ',
    ],
  );
});

it('shapeOf() finds the circle that was planted, and puts importers above what they import', async () => {
  const shape = shapeOf(await readImports(planted));
  const pair = ['high/room/left.ts', 'high/room/right.ts'];
  assert.deepEqual(shape, {
    floors: [[...pair, 'low/base.ts'], ['high/top.ts']],
    circles: [pair],
    upward: [pair, pair.toReversed()],
    arrows: 4,
  });
});

it('group() makes layers out of files, and rooms of a layer', async () => {
  const graph = await readImports(planted);
  assert.deepEqual(shapeOf(group(graph, layerOf)).floors, [['low'], ['high']]);
  assert.deepEqual(shapeOf(group(graph, roomOf('high'))).floors, [['room/'], ['top.ts']]);
});

it('describe() and draw() name every room, its floor and its arrows', async () => {
  const graph = await readImports(planted);
  const inside = group(graph, fileOf('high'));
  const text = describe('src/high', group(graph, roomOf('high')), inside);
  assert.equal(
    text,
    `src/high
  files 3, floors 2, arrows 3, not downward 2, circles 1
  rooms 2, floors 2, arrows 1, not downward 0, circles 0

floor
    2  top.ts -> room/
    1  room/
`,
  );
  const svg = await draw(inside);
  assert.match(svg, /<title>top\.ts&#45;&gt;room\/left\.ts<\/title>/);
  assert.equal(svg.match(/stroke="red"/g)?.length, 4); // two arrows: line and head
});

/** Imports of types count, too. */
const real = await readImports(repo);
for (const layer of Object.keys(layers)) {
  it(`no file of ${layer}/ imports itself through others`, () => {
    assert.deepEqual(shapeOf(group(real, fileOf(layer))).circles, []);
  });
  it(`no room of ${layer}/ imports itself through others`, () => {
    assert.deepEqual(shapeOf(group(real, roomOf(layer))).circles, []);
  });
}

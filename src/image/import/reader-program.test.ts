import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundledReader } from './reader-program.ts';

test('bundledReader() is one file that needs nothing but Node, and is made once', async () => {
  const [text = '', again] = await Promise.all([bundledReader(), bundledReader()]);
  const needed = [...text.matchAll(/^(?:import|export)\b.*\bfrom\s*"([^"]+)"/gm)].map(([, name]) => name);
  assert.ok(needed.includes('node:zlib'), needed.join());
  assert.deepEqual(
    needed.filter((name) => !name?.startsWith('node:')),
    [],
  );
  assert.doesNotMatch(text, /\b(?:import|require)\(/);
  assert.equal(again, text);
  assert.equal(await bundledReader(), text);
});

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { helpPages } from './help-pages.ts';

test('help.txt, which `podvm` prints before Node is installed, matches the program’s help', async () => {
  const written = await readFile(join(import.meta.dirname, 'help.txt'), 'utf8');
  assert.equal(written, helpPages(), 'run `npm run help` to update it');
});

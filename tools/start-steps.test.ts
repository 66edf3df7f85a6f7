import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { it } from 'node:test';
import { startPage, startPagePath } from './start-steps.ts';

it('docs/start.md has the steps of a start as the code runs them', async () => {
  const written = await readFile(startPagePath, 'utf8');
  assert.equal(written, await startPage(), 'run `npm run steps`, which writes them');
});

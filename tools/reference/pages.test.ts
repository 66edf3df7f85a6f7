import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { referencePages } from './pages.ts';

const directory = join(import.meta.dirname, '../../docs/reference');

for (const [name, print] of Object.entries(referencePages)) {
  it(`docs/reference/${name} says what the running tables say`, async () => {
    const written = await readFile(join(directory, name), 'utf8');
    assert.equal(written, await print(), 'run `npm run docs`, which writes it');
  });
}

it('docs/reference holds these pages and no others', async () => {
  assert.deepEqual((await readdir(directory)).sort(), Object.keys(referencePages).sort());
});

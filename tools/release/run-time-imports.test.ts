import assert from 'node:assert/strict';
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

const repo = join(import.meta.dirname, '../..');

/** OpenTelemetry's packages have ES modules for bundlers. */
test('no source imports a CommonJS package at run time, which has no names in a release', async () => {
  const found: string[] = [];
  for await (const file of glob('src/**/*.ts', { cwd: repo, exclude: ['**/*.test.ts', '**/testing/**'] })) {
    const text = await readFile(join(repo, file), 'utf8');
    for (const [, name] of text.matchAll(/\bimport\('(?!node:|@opentelemetry\/|[.#])([^']+)'\)/g))
      found.push(`${file}: ${name}`);
  }
  assert.deepEqual(found, []);
});

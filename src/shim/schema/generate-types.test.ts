import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { generatedDirectory, generateTypes } from './generate-types.ts';

test('generated/ is what the descriptor makes (else run src/shim/schema/generate-types.ts)', async () => {
  const files = await readdir(generatedDirectory, { recursive: true, withFileTypes: true });
  const paths = files.filter((file) => file.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  const found: Record<string, string> = {};
  for (const path of paths) found[relative(generatedDirectory, path)] = await readFile(path, 'utf8');
  assert.deepEqual(found, Object.fromEntries(await generateTypes()));
});

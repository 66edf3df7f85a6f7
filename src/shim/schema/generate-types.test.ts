import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { generatedDirectory, generateTypes } from './generate-types.ts';

test('generated/ is what the descriptor makes (else run src/shim/schema/generate-types.ts)', async () => {
  const files = await readdir(generatedDirectory, { recursive: true, withFileTypes: true });
  const paths = files.filter((file) => file.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  const found = paths.map(async (path) => [relative(generatedDirectory, path), await readFile(path, 'utf8')] as const);
  assert.deepEqual(new Map((await Promise.all(found)).sort()), new Map([...(await generateTypes())].sort()));
});

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { generateTypes, typesPath } from './generate-types.ts';

test('api_pb.ts is what the descriptor makes (else run src/cri/schema/generate-types.ts)', async () => {
  assert.equal(await readFile(typesPath, 'utf8'), await generateTypes());
});

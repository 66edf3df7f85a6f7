import assert from 'node:assert/strict';
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { generateTypes, repo, schemas } from './generate-types.ts';

for (const [name, schema] of Object.entries(schemas)) {
  test(`the types of ${name} are what the descriptor makes (else run tools/protobuf/generate-types.ts)`, async () => {
    const found: Record<string, string> = {};
    const directory = join(repo, schema.outDirectory);
    for await (const path of glob('**/*_pb.ts', { cwd: directory }))
      found[path] = await readFile(join(directory, path), 'utf8');
    assert.deepEqual(found, Object.fromEntries(await generateTypes(schema)));
  });
}

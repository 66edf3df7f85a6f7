import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseManifests } from '#pod/manifest/manifest.ts';
import { SecretsInMemory } from './secrets-in-memory.ts';

/** A Secret of some seven million characters. */
const large = (name: string) => {
  const text = `apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: m, image: i}]}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: ${name}}\nstringData: {a: x}\n`;
  const [secret] = parseManifests([{ name: 'f', text }]).secrets;
  assert.ok(secret !== undefined);
  return { secrets: [{ ...secret, stringData: { a: 'x'.repeat(7_000_000) } }] };
};

test('SecretsInMemory drops the oldest Secrets when all of them are too large', () => {
  const kept = new SecretsInMemory();
  for (const id of ['a', 'b', 'c', 'd']) kept.keep(id, large(id));
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].filter((id) => kept.of(id) !== undefined),
    ['c', 'd'],
  );
  kept.drop('c');
  kept.keep('e', large('e'));
  assert.ok(kept.of('d') !== undefined && kept.of('e') !== undefined);
});

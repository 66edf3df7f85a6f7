import assert from 'node:assert/strict';
import { memoryUsage } from 'node:process';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { readManifests } from './read-manifests.ts';
import { watchTurns } from '../../../test/busy-time.ts';

const never = new AbortController().signal;
const pod = 'apiVersion: v1\nkind: Pod\nmetadata: {name: big}\nspec: {containers: [{name: c, image: i}]}\n';
/** A file large enough for a separate process. */
const long = `${pod}${'# a comment\n'.repeat(5000)}`;

test('readManifests() returns the same results and errors for large and small files', async () => {
  const small = await readManifests([{ name: 'f', text: pod }], never);
  const large = await readManifests([{ name: 'f', text: long }], never);
  assert.deepEqual(JSON.parse(JSON.stringify(large)), JSON.parse(JSON.stringify(small)));
  await assert.rejects(readManifests([{ name: 'f', text: long.replace('name: c', 'name: C') }], never), {
    kind: 'invalid',
    message: /^Cannot use f: it has a problem\nf:4: spec\.containers\[0\]\.name: must be a DNS label/,
  });
});

test('readManifests() ends at once when it is aborted', async () => {
  await assert.rejects(readManifests([{ name: 'f', text: long }], AbortSignal.abort()), { kind: 'cancelled' });
  const soon = AbortSignal.timeout(20);
  await assert.rejects(readManifests([{ name: 'f', text: '- a\n'.repeat(200_000) }], soon), { kind: 'cancelled' });
});

test('readManifests() refuses hostile files with a message, within limits of memory and time', async () => {
  const hostile = {
    aliases: `a: &a x\nb: [${'*a,'.repeat(100_000)}]`,
    documents: '---\na: 1\n'.repeat(10_000),
    deep: '['.repeat(4_000_000),
    dense: 'a,'.repeat(2_000_000),
    open: `"${'x'.repeat(4_000_000)}`,
    marks: '---\n'.repeat(1_000_000),
    errors: 'a: b: c\n'.repeat(60_000),
    json: `{"items":[${'{},'.repeat(200_000)}{}]}`,
  };
  const before = memoryUsage.rss();
  using turns = watchTurns();
  for (const [name, text] of Object.entries(hostile)) {
    const found = await readManifests([{ name, text }], never).catch((error: unknown) => error);
    if (name === 'marks') assert.ok(!(found instanceof Error)); // documents without content are skipped
    else
      assert.ok(found instanceof PodvmError && found.kind === 'invalid' && found.message.startsWith('Cannot '), name);
  }
  assert.ok(memoryUsage.rss() - before < 100e6, `grew by ${memoryUsage.rss() - before} bytes`);
  assert.ok(turns.longestMs() < 1000, `blocked for ${turns.longestMs()} ms`);
});

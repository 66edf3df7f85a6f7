import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { ConsoleRing, maxRingBytes } from './console-ring.ts';

test('ConsoleRing keeps the end of a guest’s output within its limit, even after the guest has ended', async () => {
  const source = new PassThrough();
  const ring = new ConsoleRing(source);
  assert.equal((await ring.tail(100)).length, 0);
  const chunks = Array.from({ length: 40 }, (_, at) => Buffer.alloc(1000, 65 + (at % 26)));
  for (const chunk of chunks) source.write(chunk);
  source.end('Kernel panic\n');
  await ring.finished();
  const said = Buffer.concat([...chunks, Buffer.from('Kernel panic\n')]);
  assert.ok((await ring.tail(2 * maxRingBytes)).equals(said.subarray(-maxRingBytes)));
  assert.equal(String(await ring.tail(6)), 'panic\n');
});

test('ConsoleRing ends with its source, or when it is disposed, even twice', async () => {
  const source = new PassThrough();
  const ring = new ConsoleRing(source);
  await ring[Symbol.asyncDispose]();
  await ring[Symbol.asyncDispose]();
  assert.equal(source.destroyed, true);
});

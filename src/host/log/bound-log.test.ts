import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { boundLog } from './bound-log.ts';

test('boundLog() empties a log that exceeds the limit, and does not touch a smaller one', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-bound-'));
  try {
    const [large, small] = [join(directory, 'large'), join(directory, 'small')];
    const flags = constants.O_CREAT | constants.O_WRONLY | constants.O_APPEND;
    await using writer = await open(large, flags);
    await using other = await open(small, flags);
    await other.write(Buffer.alloc(100));
    await writer.write(Buffer.alloc(101));
    using _ = boundLog(large, 100, 5);
    using _2 = boundLog(small, 100, 5);
    const deadline = AbortSignal.timeout(60_000);
    while ((await stat(large)).size > 0) await delay(5, undefined, { signal: deadline });
    await writer.write(Buffer.alloc(7));
    assert.equal((await stat(large)).size, 7); // appended, not written at the old offset
    assert.equal((await stat(small)).size, 100);
  } finally {
    await rm(directory, { recursive: true });
  }
});

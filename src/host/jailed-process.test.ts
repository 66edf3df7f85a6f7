import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { spawnJailed } from './jailed-process.ts';

const directory = await mkdtemp('/var/tmp/podvm-vmm-');
after(() => rm(directory, { recursive: true }));

test('spawnJailed() hears of a jail that cannot be built, however fast it ends', { timeout: 60_000 }, async () => {
  for (let round = 0; round < 100; round += 1) {
    const started = spawnJailed({ what: 'it', command: ['/bin/false'], output: join(directory, 'log') });
    await assert.rejects(started, { kind: 'internal', message: /its jail could not be built/ });
  }
});

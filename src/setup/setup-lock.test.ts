import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentProgress } from './progress.ts';
import { takeSetupLock } from './setup-lock.ts';

test('takeSetupLock() leaves no file that other users can open and lock, even if an earlier version did', async () => {
  const root = await mkdtemp(join(tmpdir(), 'podvm-lock-'));
  try {
    await writeFile(join(root, 'setup.lock'), '', { mode: 0o644 });
    await using _lock = await takeSetupLock(root, silentProgress, AbortSignal.timeout(60_000));
    assert.equal((await stat(join(root, 'setup.lock'))).mode & 0o777, 0o600);
  } finally {
    await rm(root, { recursive: true });
  }
});

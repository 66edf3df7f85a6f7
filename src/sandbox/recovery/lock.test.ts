import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isLocked, lockDirectory } from './lock.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

/** A process in another network namespace that holds the lock until its input ends, or reports why it cannot. */
function lockElsewhere(directory: string) {
  const program = `
    const { lockDirectory } = await import(${JSON.stringify(join(import.meta.dirname, 'lock.ts'))});
    try {
      await using lock = await lockDirectory(${JSON.stringify(directory)});
      console.log('locked');
      for await (const _ of process.stdin);
    } catch (error) {
      console.log(error.message);
    }`;
  const child = spawn('unshare', ['--net', process.execPath, '--input-type=module', '--eval', program], {
    cwd: join(import.meta.dirname, '../../..'),
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  return {
    said: once(child.stdout, 'data').then(([line]) => String(line)),
    async end(how: 'close' | 'kill') {
      if (how === 'close') child.stdin.end();
      else child.kill('SIGKILL');
      await ended;
    },
  };
}

test('one process has a directory at a time, and others are told which', async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), 'podvm-lock-'));
  assert.equal(await isLocked(directory.path), false);
  {
    await using _lock = await lockDirectory(directory.path);
    assert.equal(await isLocked(directory.path), true);
    await assert.rejects(lockDirectory(directory.path), {
      kind: 'busy',
      message: new RegExp(`process ${process.pid}`),
    });
  }
  assert.equal(await isLocked(directory.path), false);
});

test(
  'the lock also holds in other network namespaces, and ends with its holder, however that ends',
  { skip },
  async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), 'podvm-lock-'));
    {
      await using _lock = await lockDirectory(directory.path);
      const other = lockElsewhere(directory.path);
      assert.match(await other.said, /another podvm works in it/);
      await other.end('close');
    }
    for (const how of ['close', 'kill'] as const) {
      const holder = lockElsewhere(directory.path);
      assert.equal(await holder.said, 'locked\n');
      await assert.rejects(lockDirectory(directory.path), { kind: 'busy' });
      await holder.end(how);
      assert.equal(await isLocked(directory.path), false);
    }
  },
);

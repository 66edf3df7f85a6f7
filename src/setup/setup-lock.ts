import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { defaultEnv } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import type { Progress } from './progress.ts';

/**
 * The lock for changing the assets below `root`, held until disposed of or until this process ends, in any way: a child
 * holds the lock (Node has no flock) while this end of its standard input is open.
 * Errors: `cancelled`.
 */
export async function takeSetupLock(root: string, progress: Progress, signal: AbortSignal): Promise<AsyncDisposable> {
  await mkdir(root, { recursive: true });
  const path = join(root, 'setup.lock');
  await using file = await open(path, 'a', 0o600);
  await file.chmod(0o600); // earlier versions left it open: every user could hold the lock
  const args = ['--no-fork', path, 'sh', '-c', 'echo held; exec cat >/dev/null'];
  const child = await startChild('flock', args, {
    failing: `Cannot take the set-up lock below ${root}: cannot run flock`,
    stdio: ['pipe', 'pipe', 'inherit'],
    env: defaultEnv(),
  });
  const { stdin, stdout } = child;
  assert(stdin !== null && stdout !== null);
  const ended = once(child, 'close');
  const held = once(stdout, 'data', { signal });
  try {
    await progress.during('waiting for another set-up to finish', () =>
      Promise.race([
        held,
        ended.then(() => {
          throw new PodvmError('internal', `Cannot take the set-up lock below ${root}: flock ended early`);
        }),
      ]),
    );
  } catch (error) {
    child.kill('SIGKILL');
    if (signal.aborted) throw new PodvmError('cancelled', 'Cannot set up: cancelled', { cause: error });
    throw error;
  }
  return {
    async [Symbol.asyncDispose]() {
      stdin.end();
      await ended;
    },
  };
}

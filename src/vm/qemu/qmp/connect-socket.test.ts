import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectSocket } from './connect-socket.ts';

const listener = `
  require('node:net').createServer().listen({ path: process.argv[1], backlog: 1 }, () => console.log('listening'));
`;

/** Starts a program that listens and, while it is stopped, accepts no connection. */
async function listening() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-socket-'));
  const path = join(directory, 'socket');
  const child = spawn(process.execPath, ['-e', listener, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  return {
    directory,
    path,
    child,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
      await rm(directory, { recursive: true });
    },
  };
}

/** Connects until the next one is refused for lack of room. */
async function fill(path: string): Promise<void> {
  for (;;) {
    const socket = connect(path);
    const outcome = await Promise.race([once(socket, 'connect'), once(socket, 'error')]).catch(
      (error: unknown) => error,
    );
    socket.on('error', () => {});
    if (outcome instanceof Error) {
      assert.equal(Reflect.get(outcome, 'code'), 'EAGAIN');
      return;
    }
  }
}

test('connectSocket() waits for its turn when the listener serves one connection at a time', async () => {
  await using program = await listening();
  program.child.kill('SIGSTOP');
  await fill(program.path);
  await assert.rejects(connectSocket(program.path, AbortSignal.timeout(100)), { kind: 'cancelled' });
  const connecting = connectSocket(program.path, AbortSignal.timeout(60_000));
  program.child.kill('SIGCONT');
  (await connecting).destroy();
});

test('connectSocket() refuses a path that is not a socket, since the VMM can write to the directory', async () => {
  await using program = await listening();
  const link = join(program.directory, 'link');
  const file = join(program.directory, 'file');
  await symlink(program.path, link);
  await writeFile(file, '');
  for (const path of [link, file, join(program.directory, 'nothing')]) {
    await assert.rejects(connectSocket(path, AbortSignal.timeout(60_000)), { kind: 'unavailable' });
  }
});

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { spawnJailed } from './jailed-process.ts';

const directory = await mkdtemp('/var/tmp/podvm-vmm-');
after(() => rm(directory, { recursive: true }));

test('spawnJailed() reports a jail that cannot be built, also when it ends at once', { timeout: 60_000 }, async () => {
  for (let round = 0; round < 100; round += 1) {
    const started = spawnJailed({ what: 'it', command: ['/bin/false'], output: join(directory, 'log') });
    await assert.rejects(started, { kind: 'internal', message: /its jail could not be built/ });
  }
});

test('spawnJailed() passes no descriptor of our own starter to a jail', { timeout: 60_000 }, async () => {
  const log = join(directory, 'descriptors');
  const jail = ['bwrap', '--info-fd', '3', '--ro-bind', '/', '/', '--unshare-pid', '--proc', '/proc', '--'];
  const command = [...jail, 'sh', '-c', 'for fd in /proc/self/fd/*; do echo "${fd##*/}"; done'];
  const script = `
    import { spawnJailed } from ${JSON.stringify(join(import.meta.dirname, 'jailed-process.ts'))};
    const { ended } = await spawnJailed({ what: 'it', command: ${JSON.stringify(command)}, output: ${JSON.stringify(log)} });
    process.exitCode = await ended;`;
  await using secret = await open(join(directory, 'secret'), 'w');
  const stdio = Array.from({ length: 101 }, (_, at) =>
    at === 40 || at === 100 ? secret.fd : at < 3 ? 'inherit' : null,
  );
  const program = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], { stdio });
  assert.deepEqual(await once(program, 'exit'), [0, null]);
  const descriptors = (await readFile(log, 'utf8')).trim().split('\n').map(Number);
  assert.ok(descriptors.length >= 3 && descriptors.every((fd) => fd < 16), descriptors.join(' '));
});

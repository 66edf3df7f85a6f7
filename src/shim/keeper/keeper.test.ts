import assert from 'node:assert/strict';
import { constants, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { systemClock } from '#host/clock.ts';
import { isServed } from '#host/socket/is-served.ts';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { within } from '#host/wait.ts';
import { endKeeper, Keeper } from './keeper.ts';

test('the keeper outlives the daemon, counts the bytes of each FIFO, and ends on request', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-keeper-'));
  const socketPath = join(directory, 'shim.sock');
  const stdout = join(directory, 'stdout');
  await run('mkfifo', [stdout]);
  const reader = new Socket({ fd: openSync(stdout, constants.O_RDONLY | constants.O_NONBLOCK), readable: true });
  const open = () => new Keeper({ socketPath, directory, clock: systemClock, log: silentLog });
  const first = open();
  assert.equal(await first.runs(), false);
  const output = await first.openFifos({ stdout });
  const text = Buffer.alloc(300_000, 'twelve bytes');
  let sentBytes = 0;
  // More than a FIFO and a socket take, since nothing reads: the last writes wait, as those of a daemon that is ended.
  const sending = Array.from({ length: 30 }, async (_, at) => {
    await output.write({ stream: 'stdout', bytes: text.subarray(at * 10_000, (at + 1) * 10_000) });
    sentBytes += 10_000;
  });
  for (const each of sending) each.catch(() => undefined);
  await sending[0];
  await output[Symbol.asyncDispose]();
  first[Symbol.dispose]();

  const second = open();
  assert.equal(await second.runs(), true);
  const continued = await second.openFifos({ stdout });
  const { logged } = continued;
  assert.ok(logged.stdout >= sentBytes, `${logged.stdout} of ${sentBytes}`);
  await continued.write({ stream: 'stdout', bytes: text.subarray(logged.stdout) });
  await continued.write({ stream: 'stdout', bytes: Buffer.from('end') });
  await continued[Symbol.asyncDispose]();
  const ending = second.end(stdout);
  const got = await buffer(reader);
  await ending;
  assert.ok(got.equals(Buffer.concat([text, Buffer.from('end')])), 'each byte came once');
  second[Symbol.dispose]();

  await endKeeper(directory, socketPath);
  assert.equal(await isServed(socketPath), false);
  await rm(directory, { recursive: true });
});

test('a connection to the first FIFO is closed when the second cannot be opened', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-keeper-'));
  const socketPath = join(directory, 'shim.sock');
  const stdout = join(directory, 'stdout');
  await run('mkfifo', [stdout]);
  using keeper = new Keeper({ socketPath, directory, clock: systemClock, log: silentLog });
  await assert.rejects(keeper.openFifos({ stdout, stderr: '/etc/passwd' }), { kind: 'invalid', message: /not a FIFO/ });
  // The keeper waits ten seconds for the bytes of a connection that is open.
  const ended = keeper.end(stdout).then(() => true);
  assert.equal(await within(ended, { ms: 8000 }), true);
  keeper[Symbol.dispose]();
  await endKeeper(directory, socketPath);
  await rm(directory, { recursive: true });
});

test('a path that is not a FIFO is refused', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-keeper-'));
  const socketPath = join(directory, 'shim.sock');
  using keeper = new Keeper({ socketPath, directory, clock: systemClock, log: silentLog });
  await assert.rejects(keeper.openFifos({ stdout: '/etc/passwd' }), { kind: 'invalid', message: /not a FIFO/ });
  await keeper.end('/nowhere');
  keeper[Symbol.dispose]();
  await endKeeper(directory, socketPath);
  await rm(directory, { recursive: true });
});

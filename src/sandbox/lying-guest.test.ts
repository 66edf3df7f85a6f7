import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { rawText } from '#base/guest-text.ts';
import { createLog } from '#host/log/log.ts';
import { containerSpec, sandboxSpec } from './testing/examples.ts';
import { createFakeParts } from './testing/fake-parts.ts';
import type { ExitedEvent } from '#wire/messages.ts';
import { defaultLimits } from './limits.ts';
import { openSandboxes } from './sandboxes.ts';

const never = new AbortController().signal;
const userIds = { first: 1000, count: 2 };

/** Two sandboxes with a running container each; `guest`, of the second one, lies. */
async function neighbours() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-lies-'));
  const parts = createFakeParts(directory);
  const lines: string[] = [];
  const log = createLog('warn', (line) => lines.push(line));
  const limits = { ...defaultLimits, userIds, drainTimeoutMs: 200 };
  const sandboxes = await openSandboxes({ directory, parts, log, limits }, never);
  const start = async (name: string) => {
    const sandbox = await sandboxes.run({ ...sandboxSpec, name }, never);
    const container = await sandbox.createContainer(containerSpec, never);
    await container.start(never);
    return { sandbox, container };
  };
  const [honest, lying] = [await start('honest'), await start('lying')];
  const exit: ExitedEvent = {
    kind: 'exited',
    containerId: lying.container.status.id,
    exitCode: 3,
    oomKilled: false,
    finishedAtMs: Date.now(),
  };
  return {
    parts,
    lines,
    honest,
    lying,
    exit,
    async [Symbol.asyncDispose]() {
      await sandboxes[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
}

test('answers of a guest about another pod’s container, or a missing one, change nothing', async () => {
  await using pods = await neighbours();
  const { parts, honest, lying, exit } = pods;
  for (const containerId of [honest.container.status.id, 'no-such', '__proto__', 'constructor']) {
    parts.guest.tell({ ...exit, containerId });
    parts.guest.tell({ ...exit, containerId, execId: 'exec-0' });
    parts.guest.tell({ kind: 'oomKilled', containerId });
    parts.guest.tell({ kind: 'terminationMessage', containerId, data: 'bGll' });
  }
  await lying.sandbox.stats(never).catch(() => undefined); // events told before are applied first
  assert.equal(honest.container.status.state, 'running');
  assert.equal(lying.container.status.state, 'running');
  assert.equal(honest.sandbox.status.state, 'ready');
  parts.killMachine('gone'); // the lying one's
  assert.equal((await lying.container.exited).message, undefined);
});

test('a guest that reports an exit a thousand times is asked for the last message once, and its first report counts', async () => {
  await using pods = await neighbours();
  const { parts, lying, exit } = pods;
  for (let exitCode = 1; exitCode <= 1000; exitCode += 1) parts.guest.tell({ ...exit, exitCode: exitCode & 0xff });
  assert.equal((await lying.container.exited).exitCode, 1);
  assert.equal(parts.guest.calls.filter(({ method }) => method === 'readFile').length, 1);
});

test('unrequested fields in an answer of a guest do not reach the status', async () => {
  await using pods = await neighbours();
  const { parts, lying, exit } = pods;
  const data = Buffer.alloc(60_000, 'x').toString('base64');
  parts.guest.answers.set('readFile', () => ({ data, truncated: false }));
  parts.guest.tell(exit);
  const { message } = await lying.container.exited;
  assert.equal(message && rawText(message).length, defaultLimits.maxTerminationBytes);
});

test('a message that a guest sent before its machine died is truncated to the limit of a termination message', async () => {
  await using pods = await neighbours();
  const { parts, lying } = pods;
  const containerId = lying.container.status.id;
  parts.guest.tell({
    kind: 'terminationMessage',
    containerId,
    data: Buffer.alloc(defaultLimits.maxTerminationBytes + 2, 'x').toString('base64'),
  });
  parts.killMachine('gone');
  const { why, message } = await lying.container.exited;
  assert.deepEqual([why, message && rawText(message).length], ['gone', defaultLimits.maxTerminationBytes]);
});

test('a guest’s report of a termination log that the container does not have is ignored', async () => {
  await using pods = await neighbours();
  const { parts, lying } = pods;
  const { terminationMessagePath: _, ...spec } = containerSpec;
  const container = await lying.sandbox.createContainer({ ...spec, name: 'silent' }, never);
  parts.guest.tell({ kind: 'terminationMessage', containerId: container.status.id, data: 'bGll' });
  parts.killMachine('gone');
  assert.equal((await container.exited).message, undefined);
});

test('a guest cannot report an end before its container was made, or in the future', async () => {
  for (const finishedAtMs of [0, -1, -1e300, 1e300, Date.now() + 1e9]) {
    await using pods = await neighbours();
    const { parts, lying, exit } = pods;
    parts.guest.tell({ ...exit, finishedAtMs });
    const { finishedAt } = await lying.container.exited;
    assert.ok(finishedAt >= lying.container.status.createdAt && finishedAt <= new Date(), String(finishedAtMs));
    const { startedAt } = lying.container.status;
    assert.ok(startedAt !== undefined && startedAt >= lying.container.status.createdAt && startedAt <= new Date());
  }
});

test('a guest that endlessly reports a lack of memory does not fill the log', async () => {
  await using pods = await neighbours();
  const { parts, lying, lines } = pods;
  const containerId = lying.container.status.id;
  for (let count = 0; count < 10_000; count += 1) parts.guest.tell({ kind: 'oomKilled', containerId });
  await lying.container.exec({ command: ['x'], tty: false, stdin: false }, never).catch(() => undefined);
  assert.equal(lines.length, 14); // 1, 2, 4, ... 8192
});

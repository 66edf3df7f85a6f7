import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { openSandboxes } from '../sandboxes.ts';
import { sandboxSpec } from '../testing/examples.ts';
import { createFakeParts } from '../testing/fake-parts.ts';
import { startedContainer } from '../testing/fake-sandboxes.ts';

/*
 * Work that a pod waits for, counted: calls to the guest, the machine and the network, and the bytes of the guest's calls.
 * Unlike a time, a count is the same on a busy machine. A change that needs more says so here, with its figures in the commit.
 */

interface Budget {
  /** Calls, in any order. */
  readonly calls: readonly string[];
  /** Maximum size of the calls to the guest, as JSON. */
  readonly maxBytes: number;
}

const coldStart: Budget = {
  calls: [
    ...['network.prepare', 'network.connect', 'scratch', 'driver.start', 'link.connect', 'machine.attachDisk'],
    ...['call configure', 'call attachDisk', 'call connect'],
  ],
  maxBytes: 900,
};
const pooledStart: Budget = { calls: ['network.connect', 'call configure', 'call connect'], maxBytes: 850 };
const container: Budget = {
  calls: ['image', 'machine.attachDisk', 'call attachDisk', 'call createContainer', 'call startContainer'],
  maxBytes: 3200,
};
const exec: Budget = { calls: ['call startExec'], maxBytes: 150 };
const end: Budget = { calls: ['call readFile'], maxBytes: 100 };

/** Steps of a machine that the pool makes to replace the one that was taken. */
const replacing: ReadonlySet<string> = new Set(['network.prepare', 'scratch', 'driver.start']);
const never = new AbortController().signal;

for (const [what, poolSize, start] of [
  ['without a waiting machine', 0, coldStart],
  ['with a waiting machine', 1, pooledStart],
] as const) {
  test(`a pod ${what} costs no more calls and bytes than its budget`, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-round-trips-'));
    await using undo = new AsyncDisposableStack();
    undo.defer(() => rm(directory, { recursive: true }));
    const parts = createFakeParts(directory);
    const calls: string[] = [];
    let holdsPool = false;
    parts.before = async (step, signal) => {
      signal.throwIfAborted();
      if (holdsPool && replacing.has(step)) await untilAborted(new Promise<never>(() => {}), signal);
      else calls.push(step);
    };
    const sandboxes = undo.use(await openSandboxes({ directory, parts, log: silentLog, poolSize }, never));
    await sandboxes.warmUp('pool', never);
    holdsPool = poolSize > 0;
    calls.length = 0;
    let callsBefore = poolSize === 0 ? 0 : parts.guest.calls.length;
    const isWithin = (step: string, budget: Budget) => {
      const sent = parts.guest.calls.slice(callsBefore);
      callsBefore += sent.length;
      assert.deepEqual(calls.splice(0).toSorted(), budget.calls.toSorted(), `calls of ${step}`);
      const bytes = sent.reduce((sum, { params }) => sum + JSON.stringify(params).length, 0);
      const sizes = sent.map(({ method, params }) => `${method} ${JSON.stringify(params).length}`).join(', ');
      assert.ok(bytes <= budget.maxBytes, `bytes of ${step}: ${bytes} of at most ${budget.maxBytes} (${sizes})`);
    };
    const sandbox = await sandboxes.run(sandboxSpec, never);
    const isConnecting = () => parts.guest.calls.slice(callsBefore).some(({ method }) => method === 'connect');
    while (!isConnecting()) await new Promise(setImmediate); // the start does not wait for it
    isWithin('the start of a sandbox', start);
    const started = await startedContainer(sandbox, parts);
    isWithin('a container', container);
    await started.container.exec({ command: ['true'], tty: false, stdin: false }, never);
    isWithin('an exec', exec);
    started.exit(0);
    await started.container.exited;
    isWithin('the end of a container', end);
  });
}

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import type { Link } from '#link/link.ts';
import { containerSpec } from '../testing/examples.ts';
import { GuestContainer } from './guest-container.ts';
import { startErrorCode } from './start-error.ts';
import { createInbox } from '../state/inbox.ts';
import { defaultLimits } from '../limits.ts';
import { pumpOutput } from '../log/output.ts';
import { hostTimes } from './host-times.ts';

const never = new AbortController().signal;

/** A container whose guest gives the test's answers, in the order of its calls. */
function place(
  startFails: boolean | 'given up',
  now = () => 0,
  startedAtMs = 5,
  hostMsOf = (guestMs: number) => guestMs,
) {
  const bugs: unknown[] = [];
  const calls: string[] = [];
  const inbox = createInbox((error) => bugs.push(error));
  const call = async (method: string) => {
    calls.push(method);
    if (method === 'startContainer' && startFails === 'given up') throw new PodvmError('cancelled', 'the user left');
    if (method === 'readFile') throw new PodvmError('notFound', 'no message');
    if (method === 'startContainer' && startFails) throw new PodvmError('internal', 'crun: exec format error');
    return { startedAtMs };
  };
  // SAFE: a container uses nothing else of its link
  const guest = { call } as unknown as Link;
  const starts = { during: async <T>(start: () => Promise<T>) => await start() };
  const parts = { inbox, guest, limits: defaultLimits, log: silentLog, starts, connected: Promise.resolve() };
  const home = { ...parts, isLeft: () => false, now: () => new Date(now()), hostMsOf };
  const container = new GuestContainer('c', containerSpec, '/log', home);
  const stdout = new PassThrough();
  stdout.end();
  const log = { write: async () => {}, async [Symbol.asyncDispose]() {} };
  const output = pumpOutput({ stdout }, log, () => {});
  let lose: (why: string) => void = () => {};
  const mounts = {
    status: [],
    sources: [],
    onLost: (listener: (why: string) => void) => void (lose = listener),
    endStopped: async () => {},
    [Symbol.asyncDispose]: async () => void calls.push('mounts given back'),
  };
  const made = { imageId: 'i', stopSignal: 15, output, stdin: undefined, mounts, reopenLog: async () => {} };
  return { container, inbox, bugs, calls, made, lose: (why: string) => lose(why) };
}

const deeds = ['created', 'unstartable', 'start', 'exit', 'lost', 'message', 'exec exit', 'remove'] as const;

test('events in any order change a container’s state only as its table says, and settle its end once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...deeds), { maxLength: 12 }),
      fc.boolean(),
      async (order, startFails) => {
        const { container, inbox, bugs, made } = place(startFails);
        const ends: unknown[] = [];
        void container.exited.then((exit) => ends.push(exit));
        const exit = { kind: 'exited', containerId: 'c', exitCode: 0, oomKilled: false, finishedAtMs: 1 } as const;
        const act = {
          created: () => inbox.tell(() => container.status.imageId === '' && container.becomeCreated(made)),
          unstartable: () => inbox.tell(() => container.becomeUnstartable(made, 127, 'not found')),
          start: () => void container.start(never).catch(() => {}),
          exit: () => inbox.tell(() => container.onGuestExit(exit)),
          message: () => inbox.tell(() => container.onTerminationMessage('bGFzdA==')),
          lost: () => inbox.tell(() => container.becomeLost('machine gone')),
          'exec exit': () => inbox.tell(() => container.onGuestExit({ ...exit, execId: 'exec-0' })),
          remove: () => void container.remove(never).catch(() => {}),
        };
        for (const deed of order) {
          const before = container.status;
          act[deed]();
          await inbox.ask(() => {});
          if (before.state === 'exited') assert.deepEqual(container.status.exit, before.exit); // the first exit counts
        }
        inbox.tell(() => container.becomeLost('the end'));
        await container.exited;
        await inbox.ask(() => {});
        assert.equal(container.status.state, 'exited');
        assert.equal(ends.length, 1);
        assert.deepEqual(bugs, []);
      },
    ),
  );
});

test('a container’s times of creation, start and end are in order, whatever the clocks show', async () => {
  const time = fc.integer({ min: -1e6, max: 1e6 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(time, { minLength: 1, maxLength: 8 }),
      time,
      time,
      fc.constantFrom('exit', 'lost'),
      fc.boolean(),
      async (hostClock, startedAtMs, finishedAtMs, ending, endsFirst) => {
        let looks = 0;
        const now = () => hostClock[looks++ % hostClock.length] ?? 0;
        const { container, inbox, made } = place(false, now, startedAtMs);
        const end = () => {
          if (ending === 'lost') container.becomeLost('machine gone');
          else container.onGuestExit({ kind: 'exited', containerId: 'c', exitCode: 0, oomKilled: false, finishedAtMs });
        };
        await inbox.ask(() => container.becomeCreated(made));
        const starting = container.start(never);
        if (!endsFirst) await starting;
        inbox.tell(end);
        await Promise.all([starting.catch(() => {}), container.exited]);
        const { createdAt, startedAt = createdAt, exit } = container.status;
        assert.ok(exit !== undefined);
        const times = [createdAt, startedAt, exit.finishedAt].map((at) => at.getTime());
        assert.deepEqual(
          times,
          times.toSorted((a, b) => a - b),
        );
      },
    ),
  );
});

test('times from the guest follow a change of the host’s date', async () => {
  const hourMs = 3_600_000;
  let [nowMs, ns] = [10_000_000, 0n];
  const hostMsOf = hostTimes({ nowMs: () => nowMs, monotonicNs: () => ns });
  nowMs += hourMs;
  const { container, inbox, made } = place(false, () => nowMs, 10_001_000, hostMsOf);
  await inbox.ask(() => container.becomeCreated(made));
  [nowMs, ns] = [nowMs + 1000, ns + 1_000_000_000n];
  await container.start(never);
  [nowMs, ns] = [nowMs + 9000, ns + 9_000_000_000n];
  const exit = { kind: 'exited', containerId: 'c', exitCode: 0, oomKilled: false, finishedAtMs: 10_010_000 } as const;
  inbox.tell(() => container.onGuestExit(exit));
  await container.exited;
  const { createdAt, startedAt, exit: { finishedAt } = {} } = container.status;
  const sinceMs = [createdAt, startedAt, finishedAt].map((at) => (at?.getTime() ?? 0) - hourMs);
  assert.deepEqual(sinceMs, [10_000_000, 10_001_000, 10_010_000]);
});

test('an abandoned start leaves nothing running in the guest, even if the guest carried it out', async () => {
  const { container, inbox, calls, made } = place('given up');
  inbox.tell(() => container.becomeCreated(made));
  await assert.rejects(container.start(never), { kind: 'cancelled' });
  assert.equal((await container.exited).reason, 'StartError');
  assert.deepEqual(calls, ['startContainer', 'removeContainer']);
});

test('a container is killed when something it mounts is lost, and reports that', async () => {
  const { container, inbox, calls, made, lose } = place(false);
  inbox.tell(() => container.becomeCreated(made));
  await container.start(never);
  lose('the file server of /srv has ended');
  assert.deepEqual(calls, ['startContainer', 'signalContainer']);
  const exit = { kind: 'exited', containerId: 'c', exitCode: 137, oomKilled: false, finishedAtMs: 1 } as const;
  inbox.tell(() => container.onGuestExit(exit));
  const { reason, why } = await container.exited;
  assert.deepEqual([reason, why], ['Error', 'the file server of /srv has ended']);
});

test('remove() releases the mounts once, after the container is removed from the guest', async () => {
  const { container, inbox, calls, made } = place(false);
  inbox.tell(() => container.becomeCreated(made));
  inbox.tell(() => container.becomeLost('the end'));
  await container.exited;
  await container.remove(never);
  await container.remove(never);
  assert.deepEqual(calls, ['removeContainer', 'mounts given back']);
});

test('startErrorCode() returns the shell’s exit code if the message tells it', () => {
  assert.equal(startErrorCode('executable file `x` not found in $PATH'), 127);
  assert.equal(startErrorCode('open executable: No such file or directory'), 127);
  assert.equal(startErrorCode('exec /x: Permission denied'), 126);
  assert.equal(startErrorCode('the path `/etc/passwd` exists but it is not executable'), 126);
  assert.equal(startErrorCode('the path `/etc` is not a regular file'), 126);
  assert.equal(startErrorCode('something else'), 128);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ChildExit } from '#engine/engine.ts';
import { Children } from '../process/children.ts';
import { Shares, type SharesParts } from './shares.ts';

/**
 * A guest with a clock of its own. `portAtMs`: the time at which its port appears; `lookedAfterMs`: the duration of its
 * first look at the share.
 */
function guest({ portAtMs, lookedAfterMs }: { readonly portAtMs: number; readonly lookedAfterMs: number }) {
  let [nowMs, pids] = [0, 1];
  let timers: { readonly atMs: number; readonly handler: () => void }[] = [];
  let onExit: (exit: ChildExit) => void = () => {};
  const setTimer = (delayMs: number, handler: () => void) => {
    timers.push({ atMs: nowMs + delayMs, handler });
    return timers.length;
  };
  const engine = {
    setTimer,
    clearTimer: () => {},
    monotonicMs: () => nowMs,
    list: () => (nowMs >= portAtMs ? ['vport0p2'] : []),
    status: () => ({}),
    readText: () => 'host-1\n',
    open: () => 7,
    close: () => {},
    makeDirectories: () => {},
    removeDirectory: () => {},
    mount: () => {},
    unmount: () => {},
    kill: (pid: number) => onExit({ pid, signal: 9 } as ChildExit), // SAFE: of a process that was killed
    onExit: (handler: typeof onExit) => void (onExit = handler),
    spawn: ({ argv }: { readonly argv: readonly string[] }) => {
      const pid = (pids += 1);
      const exit = { pid, code: 0 } as ChildExit; // SAFE: of a process that has ended well
      if (argv[0] === 'podvm-look') setTimer(lookedAfterMs, () => onExit(exit));
      return pid;
    },
  } as unknown as SharesParts['engine']; // SAFE: a share calls nothing else
  const shares = new Shares({ engine, children: new Children(engine), loadModule: () => true, warn: () => {} });
  /** Lets time pass, one timer after the other, until the promise is settled. */
  const settled = async (promise: Promise<void>) => {
    const over = new AbortController();
    const end = () => over.abort();
    promise.then(end, end);
    await new Promise(setImmediate);
    while (!over.signal.aborted && timers.length > 0) {
      const next = timers.toSorted((a, b) => a.atMs - b.atMs)[0] ?? assert.fail();
      timers = timers.filter((timer) => timer !== next);
      nowMs = Math.max(nowMs, next.atMs);
      next.handler();
      await new Promise(setImmediate);
    }
    await promise;
  };
  return { shares, settled };
}

const volume = { name: 'host_1', kind: 'share', port: 'host-1' } as const;

test('attach() waits for a late port and file server as long as a kubelet does', async () => {
  const { shares, settled } = guest({ portAtMs: 40_000, lookedAfterMs: 70_000 });
  await settled(shares.attach(volume));
  assert.equal(shares.path('host_1'), '/run/podvm/shares/host_1');
});

test('attach() fails when a file server does not answer, and leaves nothing', async () => {
  const { shares, settled } = guest({ portAtMs: 0, lookedAfterMs: 1_000_000 });
  await assert.rejects(settled(shares.attach(volume)), { kind: 'timeout', message: /does not answer/ });
  assert.equal(shares.path('host_1'), undefined);
});

import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { ChildExit } from '#engine/engine.ts';
import { runAside } from './aside.ts';

const childrenThatExit = (exit: Pick<ChildExit, 'code' | 'signal'>) => ({
  wait: async (pid: number): Promise<ChildExit> => ({ pid, maxRssKiB: 0, ...exit }),
});

function clock() {
  const waits: number[] = [];
  const setTimer = (ms: number, handler: () => void) => {
    queueMicrotask(handler);
    return waits.push(ms);
  };
  return { waits, setTimer };
}

it('runAside() returns the errno, and retries while too many processes run', async () => {
  const timers = clock();
  const pids = [0, 0, 42];
  const start = () => pids.shift() ?? assert.fail('started twice');
  assert.equal(await runAside(timers, childrenThatExit({ code: 19, signal: undefined }), start), 19);
  assert.equal(timers.waits.length, 2);
});

it('runAside() treats a process that a signal ended as a failed call', async () => {
  const killed = childrenThatExit({ code: undefined, signal: 9 });
  assert.notEqual(await runAside(clock(), killed, () => 42), 0);
});

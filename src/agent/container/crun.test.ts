import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { ChildExit, Engine } from '#engine/engine.ts';
import { Children } from '../process/children.ts';
import { Crun } from './crun.ts';

/** An engine with one process of crun, whose pauses and end the test decides. */
function fakeEngine() {
  const timers: (() => void)[] = [];
  let onExit: (exit: ChildExit) => void = () => {};
  const engine = {
    makeDirectories: () => {},
    spawn: () => 50,
    status: () => undefined,
    readText: () => '60\n',
    removeFile: () => {},
    setTimer: (_ms: number, handler: () => void) => timers.push(handler),
    clearTimer: () => void timers.splice(0),
    kill: (pid: number, signal: number) => onExit({ pid, signal, code: undefined, maxRssKiB: 0 }),
    onExit: (handler: typeof onExit) => void (onExit = handler),
  };
  const crun = new Crun(engine as unknown as Engine, new Children(engine), 3); // SAFE: it calls nothing else here
  const pause = (count: number) => {
    for (let left = count; left > 0; left -= 1) timers.shift()?.();
  };
  return { crun, timers, pause, end: () => onExit({ pid: 50, code: 0, signal: undefined, maxRssKiB: 0 }) };
}

const call = { id: 'c', bundle: '/bundle', fds: [-1, -1, -1], tty: false } as const;

it('create() waits for crun in a guest that gets no processor, by pauses and not by the clock', async () => {
  const { crun, timers, pause, end } = fakeEngine();
  const creating = crun.create(call);
  pause(119); // each may have taken minutes
  end();
  assert.deepEqual(await creating, { pid: 60, terminal: -1 });
  assert.equal(timers.length, 0);
});

it('create() ends a crun that hangs', async () => {
  const { crun, pause } = fakeEngine();
  const creating = crun.create(call);
  pause(120);
  await assert.rejects(creating, { kind: 'timeout', message: 'Cannot create container: crun took over 120000 ms' });
});

it('create() reports a crun that is killed', async () => {
  const { crun } = fakeEngine();
  const creating = crun.create(call);
  crun.endCreation('c');
  await assert.rejects(creating, {
    kind: 'failedPrecondition',
    message: 'Cannot create container: crun died of signal 9',
  });
});

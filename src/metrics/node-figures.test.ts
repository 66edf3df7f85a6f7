import assert from 'node:assert/strict';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'node:test';
import { NodeMeter } from './node-figures.ts';

test('the event loop is monitored only while something reads', ({ mock }) => {
  mock.timers.enable({ apis: ['setTimeout'] });
  const loop = monitorEventLoopDelay();
  const calls: string[] = [];
  const told = (name: 'enable' | 'disable') => () => calls.push(name) > 0;
  Object.assign(loop, { enable: told('enable'), disable: told('disable') });
  using undo = new DisposableStack();
  undo.defer(() => mock.timers.reset());
  const meter = undo.use(new NodeMeter(loop));
  for (let times = 0; times < 5; times += 1) {
    meter.read();
    mock.timers.tick(60_000);
  }
  assert.ok(!calls.includes('disable'), calls.join());
  mock.timers.tick(60_000);
  assert.equal(calls.at(-1), 'disable');
  assert.deepEqual(meter.read().loopDelay, { meanSeconds: 0, p99Seconds: 0, maxSeconds: 0 });
  assert.equal(calls.at(-1), 'enable');
});

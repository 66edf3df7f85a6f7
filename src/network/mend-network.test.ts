import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import { type MendedPod, NetworkMender } from './mend-network.ts';

/** Time passes as soon as this process has nothing else to do. */
class FakeClock implements Clock {
  nowMs = 1;
  now(): number {
    return this.nowMs;
  }
  monotonicMs(): number {
    return this.nowMs;
  }
  after(ms: number, action: () => void): () => void {
    const timer = setImmediate(() => {
      this.nowMs += ms;
      action();
    });
    return () => clearImmediate(timer);
  }
}

/** A mender, and pods without a network of their own that note when they are checked. */
function openMender(count: number, whyBroken: (at: number) => string | undefined = () => undefined) {
  const clock = new FakeClock();
  const mender = new NetworkMender({ log: silentLog, clock, look: () => Promise.resolve() });
  const checkedMs: number[] = [];
  const pods = Array.from({ length: count }, (_, at): MendedPod => {
    const sandboxId = `sb-${at}`;
    const record: AttachmentRecord = {
      ...{ version: 1, sandboxId, mode: 'none', mac: '02:00:00:00:00:01', tapOwnerUid: 1 },
      ...{ podName: 'pod', podNamespace: 'default', podUid: 'uid', hostPorts: [] },
    };
    const mend = () => {
      checkedMs.push(clock.nowMs);
      const why = whyBroken(at);
      return Promise.resolve(why === undefined ? undefined : { why, isFinal: true });
    };
    return {
      pod: { sandboxId, pid: 1 },
      attachment: { sandboxId, mend, addAgain: () => Promise.resolve() },
      record,
      isOurs: false,
    };
  });
  return { mender, pods, checkedMs };
}

const soon = () => AbortSignal.timeout(60_000);

test('NetworkMender.mend() checks a few of many pods at a time, all within a second', async () => {
  const { mender, pods, checkedMs } = openMender(100, (at) => (at === 99 ? 'its tap is gone' : undefined));
  assert.deepEqual(await mender.mend(pods, soon()), new Map([['sb-99', 'its tap is gone']]));
  assert.equal(checkedMs.length, 100);
  const most = Math.max(
    ...Map.groupBy(checkedMs, (ms) => ms)
      .values()
      .map(({ length }) => length),
  );
  assert.equal(most, 2);
  assert.ok((checkedMs.at(-1) ?? Infinity) - (checkedMs[0] ?? 0) < 1000);
});

test('NetworkMender.mend() waits for nothing when there is one pod', async () => {
  const { mender, pods, checkedMs } = openMender(1);
  assert.deepEqual(await mender.mend(pods, soon()), new Map());
  assert.deepEqual(checkedMs, [1]);
});

test('NetworkMender.mend() checks no more pods once it is aborted', async () => {
  const stop = new AbortController();
  const { mender, pods, checkedMs } = openMender(100, (at) => {
    if (at === 9) stop.abort();
    return undefined;
  });
  await assert.rejects(mender.mend(pods, stop.signal), { name: 'AbortError' });
  assert.equal(checkedMs.length, 10);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import type { Image } from '../images.ts';
import { startScrub } from './scrub.ts';

const dayMs = 24 * 60 * 60 * 1000;

test('startScrub() reads images that were not read for a week, one after another, and can be ended during a read', async () => {
  const nowMs = Date.UTC(2026, 0, 20);
  const image = (id: string, readDaysAgo: number | undefined, damaged?: string): Image => ({
    id,
    references: [],
    digests: [],
    sizeBytes: 1,
    createdAt: '',
    config: {},
    ...(damaged === undefined ? {} : { damaged }),
    ...(readDaysAgo === undefined
      ? {}
      : {
          rootfs: {
            digest: '',
            head: '',
            inode: '',
            mtimeNs: '',
            checkedAt: new Date(nowMs - readDaysAgo * dayMs).toISOString(),
          },
        }),
  });
  const all = [image('new', 6), image('old', 8), image('bad', 8, 'its file is gone'), image('unread', undefined)];
  const waits: number[] = [];
  let elapse = () => {};
  const clock: Clock = {
    now: () => nowMs,
    monotonicMs: () => nowMs,
    after(ms, action) {
      waits.push(ms);
      elapse = action;
      return () => {};
    },
  };
  const read: string[] = [];
  const isStuck = Promise.withResolvers<void>();
  const check = async (id: string, signal: AbortSignal) => {
    read.push(id);
    if (id === 'old') throw new Error('it was removed');
    isStuck.resolve();
    return await new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('aborted')), { once: true });
    });
  };
  const scrub = startScrub({ list: () => all, check }, { clock, log: silentLog });
  assert.deepEqual([waits, read], [[600_000], []], 'a process that soon ends reads nothing');
  elapse();
  await isStuck.promise;
  await scrub[Symbol.asyncDispose]();
  assert.deepEqual(read, ['old', 'unread']);
});

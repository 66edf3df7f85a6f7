import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import { write } from './terminal.ts';

describe('write()', () => {
  it('leaves no listener behind after repeated waits', async () => {
    const slow = new PassThrough({ highWaterMark: 1 });
    for (let times = 0; times < 20; times += 1) {
      const written = write(slow, 'much');
      slow.read();
      await written;
    }
    assert.deepEqual([slow.listenerCount('drain'), slow.listenerCount('close')], [0, 0]);
  });
});

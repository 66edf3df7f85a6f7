import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import { test } from 'node:test';
import { heldAfter } from '../../test/held-memory.ts';
import { openDeadline } from './deadline.ts';

const hourMs = 3_600_000;

test('openDeadline() aborts at the deadline', async () => {
  using deadline = openDeadline(1);
  const wait = setTimeout(() => undefined, 60_000); // the deadline alone keeps no process
  await once(deadline.signal, 'abort');
  clearTimeout(wait);
  assert.equal((deadline.signal.reason as DOMException).name, 'TimeoutError');
});

test('openDeadline() aborts with its caller, for the same reason, even if the caller was aborted before', () => {
  const caller = new AbortController();
  using deadline = openDeadline(hourMs, caller.signal);
  assert.equal(deadline.signal.aborted, false);
  caller.abort('why');
  assert.equal(deadline.signal.reason, 'why');
  using late = openDeadline(hourMs, caller.signal);
  assert.equal(late.signal.reason, 'why');
});

test('a disposed deadline leaves nothing with its caller or in memory, even with listeners', async () => {
  const caller = new AbortController();
  const grownBytes = await heldAfter(() => {
    for (let made = 0; made < 2000; made += 1) {
      using deadline = openDeadline(hourMs, caller.signal);
      const large = new Uint8Array(1000);
      deadline.signal.addEventListener('abort', () => void large.length);
    }
  });
  assert.equal(getEventListeners(caller.signal, 'abort').length, 0);
  assert.ok(grownBytes < 1_000_000, `${grownBytes} bytes more are held`);
});

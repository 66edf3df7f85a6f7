import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { systemClock } from '#host/clock.ts';
import { Events, maxListeners, maxUnreadEvents } from './events.ts';
import type { KnownPod } from './known-pods.ts';
import { ContainerEventType, PodSandboxConfigSchema } from './schema/api_pb.ts';
import { podConfig } from './testing/fake-node.ts';

const status = {
  id: 'sb-1',
  state: 'ready',
  createdAt: new Date(0),
  addresses: [],
  phases: [],
  containers: [],
  volumes: [],
};
// SAFE: events read only these fields of a pod
const pod = {
  sandbox: { id: 'sb-1', status },
  config: create(PodSandboxConfigSchema, podConfig),
  runtimeHandler: '',
  containers: new Map(),
} as unknown as KnownPod;
const tell = (events: Events) => events.tell(ContainerEventType.CONTAINER_STARTED_EVENT, 'c', pod);

test('a listener that does not read gets an error about lost events, and blocks no one', async () => {
  const events = new Events(systemClock);
  const stop = new AbortController();
  const listener = events.listen(stop.signal);
  const first = listener.next();
  for (let count = 0; count < maxUnreadEvents + 5; count += 1) tell(events);
  assert.equal((await first).done, false);
  const read = async () => {
    let count = 1;
    for await (const _event of listener) count += 1;
    return count;
  };
  await assert.rejects(read(), { kind: 'exhausted' });
});

test('the number of listeners is limited, and decreases when one disconnects', async () => {
  const events = new Events(systemClock);
  const stop = new AbortController();
  const listeners = Array.from({ length: maxListeners }, () => events.listen(stop.signal));
  const waiting = listeners.map((listener) => listener.next());
  await assert.rejects(events.listen(stop.signal).next(), { kind: 'exhausted' });
  stop.abort();
  for (const one of waiting) assert.equal((await one).done, true);
  const again = events.listen(new AbortController().signal).next();
  tell(events);
  assert.equal((await again).done, false);
});

test('end() releases listeners, including later ones', async () => {
  const events = new Events(systemClock);
  const { signal } = new AbortController();
  const waiting = events.listen(signal).next();
  events.end();
  assert.equal((await waiting).done, true);
  assert.equal((await events.listen(signal).next()).done, true);
});

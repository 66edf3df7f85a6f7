import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { connectLink } from '../connect-link.ts';
import { FakeGuest } from './fake-guest.ts';
import { describeContainers } from './containers.conformance.ts';
import { describeGuest, type GuestHarness } from './link.conformance.ts';

const never = new AbortController().signal;

async function openHarness(): Promise<GuestHarness & { readonly guest: FakeGuest }> {
  const guest = new FakeGuest();
  let port = 1000;
  return {
    guest,
    connect: async () => {
      const [host, agent] = duplexPair();
      guest.serve(agent);
      return await connectLink({ open: async () => host, handshakeTimeoutMs: 60_000, callTimeoutMs: 60_000 }, never);
    },
    listen: async (onConnection) => {
      guest.listen((port += 1), onConnection);
      return port;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

describeGuest('fake', openHarness);

describeContainers('fake', async () => {
  const harness = await openHarness();
  const link = await harness.connect();
  await link.call('attachDisk', { serial: 'image', fileSystem: 'erofs', readOnly: true }, never);
  return { link, imageDisk: 'image', [Symbol.asyncDispose]: () => link[Symbol.asyncDispose]() };
});

test('a fake guest keeps its contents across connections, and answers as a test sets', async () => {
  const harness = await openHarness();
  const { guest } = harness;
  await (await harness.connect()).call('createVolume', { name: 'v', kind: 'push' }, never);
  guest.answers.set('ping', () => ({ uptimeMs: 7 }));
  const link = await harness.connect();
  assert.deepEqual(await link.call('beginPush', { volume: 'v' }, never), { push: 1 });
  assert.deepEqual(await link.call('ping', {}, never), { uptimeMs: 7 });
  assert.deepEqual(
    guest.calls.map(({ method }) => method),
    ['createVolume', 'beginPush', 'ping'],
  );
});

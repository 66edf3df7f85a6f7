import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventsOf, openAdmin, run } from '../testing/served-admin.ts';

const isOfPod = ({ event }: Record<string, unknown>) => event === 'pod';

describe('a pod that runs in the foreground', () => {
  test('is left to the node by the command detach', async () => {
    await using served = await openAdmin();
    const socket = await run(served);
    const events = Array.fromAsync(eventsOf(socket));
    socket.send('{"command":"detach"}');
    assert.deepEqual(
      (await events).filter((event) => !isOfPod(event)),
      [
        { event: 'podDetached', pod: 'web' },
        { event: 'finished', exitCode: 0 },
      ],
    );
    await served.server.idle();
    assert.equal(served.parts.sandboxes.list()[0]?.status.state, 'ready');
    const waiting = served.call('GET', '/v1/pods/_/web/wait');
    served.parts.sandboxes.current('main').exit(4);
    assert.match((await waiting).body, /"exitCode":4/);
  });

  test('is not left where it ends with the process that serves', async () => {
    await using served = await openAdmin({}, { mayDetach: false });
    const socket = await run(served);
    const events = eventsOf(socket);
    socket.send('{"command":"detach"}');
    const said: unknown[] = [];
    for await (const event of events) {
      if (isOfPod(event)) continue;
      if (event['event'] === 'warning') served.parts.sandboxes.current('main').exit(4);
      said.push(event);
    }
    assert.match(JSON.stringify(said[0]), /"warning".*Cannot detach: the podvm that serves is a command/);
    assert.deepEqual(said.at(-1), { event: 'finished', exitCode: 4 });
  });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { poll } from '#host/wait.ts';
import { around } from '../testing/around.ts';
import { sandboxSpec } from '../testing/examples.ts';
import { is, never, openFakeSandboxes } from '../testing/fake-sandboxes.ts';
import { LeftOvers } from './left-overs.ts';

interface Fault {
  readonly connects?: boolean;
  readonly hasTemplate?: boolean;
}

/** Sandboxes whose network plugin fails when it connects a pod, and until the test says otherwise when it disconnects one. */
async function openFailing(
  vary: Parameters<typeof openFakeSandboxes>[0] = {},
  { connects = false, hasTemplate = true }: Fault = {},
) {
  let disconnects = 0;
  let failsTo = Infinity;
  const plugin = (verb: string) => new PodvmError('internal', `Cannot ${verb}: the plugin cannot reach its agent`);
  const place = await openFakeSandboxes({ undoAgainMs: 5, ...vary }, (parts) => {
    const { network, driver } = parts;
    return around(parts, {
      driver: around(driver, {
        hasTemplate: async (shape) => hasTemplate && (await driver.hasTemplate(shape)),
      }),
      network: around(network, {
        async prepare(request, signal) {
          const attachment = await network.prepare(request, signal);
          return around(attachment, {
            connect: (connecting) => (connects ? attachment.connect(connecting) : Promise.reject(plugin('connect'))),
            async [Symbol.asyncDispose]() {
              disconnects += 1;
              if (disconnects <= failsTo) throw plugin('disconnect');
              await attachment[Symbol.asyncDispose]();
            },
          });
        },
      }),
    });
  });
  return {
    ...place,
    disconnects: () => disconnects,
    recover: () => void (failsTo = 0),
  };
}

const becomes = async (isSo: () => boolean | Promise<boolean>) =>
  assert.ok(await poll(async () => (await isSo()) || undefined, { everyMs: 5, signal: AbortSignal.timeout(30_000) }));

test('what a failed start could not undo is tried again until nothing is left', async () => {
  await using place = await openFailing();
  await assert.rejects(place.sandboxes.run(sandboxSpec, never), /^PodvmError: Cannot connect: the plugin/);
  assert.deepEqual([...place.parts.alive], ['attachment']);
  await becomes(() => place.disconnects() > 3);
  assert.deepEqual([...place.parts.alive], ['attachment']);
  place.recover();
  await becomes(() => place.parts.alive.size === 0);
});

test('a sandbox that cannot be removed is tried again until nothing is left of it', async () => {
  await using place = await openFailing({}, { connects: true });
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  await assert.rejects(sandbox.remove(), is('internal'));
  await assert.rejects(sandbox.remove(), is('internal'));
  assert.deepEqual([...place.parts.alive], ['attachment']);
  const soFar = place.disconnects();
  await becomes(() => place.disconnects() > soFar + 3);
  assert.deepEqual(place.sandboxes.list(), [sandbox]);
  place.recover();
  await becomes(() => place.sandboxes.list().length === 0);
  assert.deepEqual([...place.parts.alive], []);
});

test('the network of a machine that was made for a template is tried again until it is removed', async () => {
  await using place = await openFailing({}, { hasTemplate: false });
  await place.sandboxes.warmUp('template', never);
  assert.deepEqual([...place.parts.alive], ['attachment']);
  await becomes(() => place.disconnects() > 3);
  place.recover();
  await becomes(() => place.parts.alive.size === 0);
});

test('several failures to undo the same count once, and none after a success', async () => {
  await using leftOvers = new LeftOvers(silentLog, 60_000);
  let fails = true;
  const undo = () => (fails ? Promise.reject(new Error('busy')) : Promise.resolve());
  for (let count = 0; count < 3; count += 1) await assert.rejects(leftOvers.undo(undo));
  assert.equal(leftOvers.size, 1);
  fails = false;
  await leftOvers.undo(undo);
  assert.equal(leftOvers.size, 0);
});

test('what is left counts as a sandbox, so that starts which fail again and again do not fill the host', async () => {
  await using place = await openFailing({ maxSandboxes: 1 });
  await assert.rejects(place.sandboxes.run(sandboxSpec, never), is('internal'));
  const again = place.sandboxes.run(sandboxSpec, never);
  await assert.rejects(again, {
    kind: 'exhausted',
    message: 'Cannot make a sandbox: 1 exist already, of which 1 are not completely removed',
  });
  place.recover();
  const isFull = async () => await place.sandboxes.run(sandboxSpec, never).then(() => false, is('exhausted'));
  await becomes(async () => !(await isFull()));
});

test('the end of the process waits a moment, and not until a plugin that hangs is given up', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  using _ = { [Symbol.dispose]: () => t.mock.timers.reset() };
  const leftOvers = new LeftOvers(silentLog, 1000);
  let tries = 0;
  const undo = async () => {
    tries += 1;
    if (tries === 1) throw new PodvmError('internal', 'the plugin cannot reach its agent');
    await new Promise(() => undefined);
  };
  await assert.rejects(leftOvers.undo(undo), is('internal'));
  t.mock.timers.tick(1000);
  const closed = leftOvers[Symbol.asyncDispose]();
  t.mock.timers.tick(5000);
  await closed;
  assert.equal(tries, 2);
});

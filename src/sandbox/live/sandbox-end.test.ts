import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { within } from '#host/wait.ts';
import { Heartbeat } from '#link/heartbeat.ts';
import { around } from '../testing/around.ts';
import { containerSpec, sandboxSpec } from '../testing/examples.ts';
import { type FakeParts } from '../testing/fake-parts.ts';
import { assertNothingLeft, is, never, openFakeSandboxes, startedContainer } from '../testing/fake-sandboxes.ts';

test('stop() sends SIGTERM, and kills the container after its grace period', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container, exit } = await startedContainer(sandbox, place.parts);
  const signals: unknown[] = [];
  place.parts.guest.answers.set('signalContainer', ({ signal }) => {
    signals.push(signal);
    if (signal === 9) exit(137, { signal: 9 });
  });
  const status = await sandbox.stop(20);
  assert.deepEqual(signals, [15, 9]);
  assert.equal(status.state, 'stopped');
  assert.deepEqual([...place.parts.alive], []);
  assert.equal(container.status.exit?.exitCode, 137);
});

test('a second stop() without a grace period ends the first one early', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { exit } = await startedContainer(sandbox, place.parts);
  const asked = Promise.withResolvers<void>();
  place.parts.guest.answers.set('signalContainer', ({ signal }) => {
    if (signal === 9) exit(137, { signal: 9 });
    else asked.resolve();
  });
  const first = sandbox.stop(3_600_000);
  await asked.promise;
  const second = sandbox.stop(0);
  assert.equal((await first).state, 'stopped');
  assert.deepEqual(await second, await first);
});

test('a container that no signal ends does not delay the stop', async () => {
  await using place = await openFakeSandboxes({ killTimeoutMs: 200 });
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container } = await startedContainer(sandbox, place.parts);
  place.parts.guest.answers.set('signalContainer', () => undefined);
  assert.equal((await sandbox.stop(0)).state, 'stopped');
  assert.equal((await container.exited).reason, 'SandboxFailed');
});

test('a sandbox gives up its network while its machine ends', async () => {
  const begun = { network: Promise.withResolvers<void>(), machine: Promise.withResolvers<void>() };
  await using place = await openFakeSandboxes({}, (parts) => {
    const { network, driver } = parts;
    const prepare = network.prepare.bind(network);
    network.prepare = async (request, signal) => {
      const attachment = await prepare(request, signal);
      const dispose = async () => {
        begun.network.resolve();
        await begun.machine.promise;
        await attachment[Symbol.asyncDispose]();
      };
      return around(attachment, { [Symbol.asyncDispose]: dispose });
    };
    const start = driver.start.bind(driver);
    driver.start = async (spec, signal) => {
      const machine = await start(spec, signal);
      const dispose = async () => {
        begun.machine.resolve();
        await begun.network.promise;
        await machine[Symbol.asyncDispose]();
      };
      return around(machine, { [Symbol.asyncDispose]: dispose });
    };
    return parts;
  });
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const status = await within(sandbox.stop(0), { ms: 10_000 });
  begun.network.resolve(); // otherwise nothing would end after a failure
  assert.equal(status?.state, 'stopped');
  assert.deepEqual([...place.parts.alive], []);
});

const deaths: readonly (readonly [string, (parts: FakeParts) => void, RegExp])[] = [
  ['its machine dies', (parts) => parts.killMachine('QEMU was killed by SIGKILL'), /QEMU was killed by SIGKILL/],
  [
    'its link is lost',
    (parts) => parts.tearLink(),
    /the link to the agent is lost: Cannot use the channel to the agent: it has ended/,
  ],
];
for (const [what, cause, why] of deaths) {
  test(`a sandbox fails, settles all promises and frees all resources when ${what}`, async () => {
    await using place = await openFakeSandboxes();
    const sandbox = await place.sandboxes.run(sandboxSpec, never);
    const { container } = await startedContainer(sandbox, place.parts);
    const exec = await container.exec({ command: ['sleep'], tty: false, stdin: false }, never);
    const follower = container.follow(async () => {});
    cause(place.parts);
    const status = await sandbox.ended;
    assert.equal(status.state, 'failed');
    assert.match(status.failure ?? '', why);
    assert.deepEqual([...place.parts.alive], []);
    assert.equal((await container.exited).reason, 'SandboxFailed');
    await Promise.all([exec.exited, follower.ended]);
    await assert.rejects(sandbox.createContainer({ ...containerSpec, attempt: 1 }, never), is('failedPrecondition'));
    assert.equal((await sandbox.stop(1000)).state, 'failed');
    assert.ok((await readdir(join(place.directory, 'sandboxes'))).length === 1); // its logs stay
  });
}

test('only the sandbox whose network is lost fails, with the reason', async () => {
  let lost = '';
  await using place = await openFakeSandboxes({ mendIntervalMs: 10, userIds: { first: 1000, count: 2 } }, (parts) => {
    parts.network.mend = async (pods) =>
      new Map(pods.flatMap(({ sandboxId }) => (sandboxId === lost ? [[sandboxId, 'tap0 was deleted']] : [])));
    return parts;
  });
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const other = await place.sandboxes.run({ ...sandboxSpec, name: 'other' }, never);
  lost = sandbox.id;
  const { state, failure } = await sandbox.ended;
  assert.deepEqual([state, failure], ['failed', 'the pod has lost its network: tap0 was deleted']);
  assert.equal(other.status.state, 'ready');
});

test('stopping a container whose machine does not answer ends the machine, and the sandbox fails', async () => {
  const heartbeat = new Heartbeat({ lookMs: 20, quietMs: 40, answerMs: 40, patienceMs: 100 });
  await using place = await openFakeSandboxes({ killAnswerMs: 5_000 }, (parts) => {
    const connect = parts.connectLink.bind(parts);
    parts.connectLink = (options, signal) => connect({ ...options, heartbeat }, signal);
    return parts;
  });
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container } = await startedContainer(sandbox, place.parts);
  place.parts.guest.hang();
  const exit = await container.stop(50, never);
  assert.equal(exit.reason, 'SandboxFailed');
  assert.match(exit.why ?? '', /^the machine has not answered for \d+ s$/);
  const status = await sandbox.ended;
  assert.equal(status.state, 'failed');
  assert.match(status.failure ?? '', /^the machine has not answered for/);
  assert.deepEqual([...place.parts.alive], []);
});

test('a sandbox that cannot be undone has failed and keeps its name until a remove() succeeds', async () => {
  await using place = await openFakeSandboxes();
  const { parts, sandboxes } = place;
  const make = parts.makeScratchDisk.bind(parts);
  let isStuck = true;
  parts.makeScratchDisk = async (request, signal) => {
    const disk = await make(request, signal);
    return {
      path: disk.path,
      sizeBytes: disk.sizeBytes,
      async [Symbol.asyncDispose]() {
        if (isStuck) throw new PodvmError('busy', 'the disk is in use');
        await disk[Symbol.asyncDispose]();
      },
    };
  };
  const sandbox = await sandboxes.run(sandboxSpec, never);
  const { state, failure } = await sandbox.stop(0);
  assert.deepEqual([state, failure], ['failed', 'the disk is in use']);
  assert.deepEqual([...parts.alive], ['scratch']);
  await assert.rejects(sandbox.remove(), is('busy'));
  await assert.rejects(sandboxes.run(sandboxSpec, never), is('alreadyExists'));
  isStuck = false;
  await sandbox.remove();
  await assertNothingLeft(place.directory, parts);
});

test('stopping the sandbox ends a pending creation of a container', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const pulling = Promise.withResolvers<void>();
  place.parts.before = (step, signal) =>
    new Promise((resolve, reject) => {
      if (step !== 'image') return resolve();
      pulling.resolve();
      return signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  const creating = sandbox.createContainer(containerSpec, never);
  await pulling.promise;
  const stopped = sandbox.stop(0);
  await assert.rejects(creating, is('cancelled'));
  assert.equal((await stopped).state, 'stopped');
});

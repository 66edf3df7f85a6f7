import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { podDetailsSchema, podOutcomeSchema } from '#api/pods.ts';
import { poll } from '#host/wait.ts';
import type { FakeSettings } from '#pod/testing/fake-sandbox.ts';
import { eventsOf, on, openAdmin, refusalOf, type Served } from '../testing/served-admin.ts';

const manifest = (spec: string, more = '') => `
apiVersion: v1
kind: Pod
metadata: { name: web }
spec: ${spec}
${more}`;
const always = manifest('{ containers: [{ name: main, image: i }] }');
const never = manifest('{ restartPolicy: Never, containers: [{ name: main, image: i }] }');
const nextBoot = { keeping: { bootId: 'the next boot', startsAfterBoot: true } };

async function begin(served: Served, text: string, options: object = { detach: true }) {
  const socket = served.talk('/v1/run');
  await once(socket, 'open');
  socket.send(JSON.stringify({ files: [{ name: 'web.yaml', text }], network: 'none', ...options }));
  return eventsOf(socket);
}
const detach = async (served: Served, text: string, options: object = {}) =>
  await Array.fromAsync(await begin(served, text, { detach: true, ...options }));
const details = async (served: Served) =>
  v.parse(podDetailsSchema, JSON.parse((await served.call('GET', '/v1/pods/_/web')).body));
/** Waits in real time until `look` holds: records are written while the fake clock stands still. */
async function until(what: string, look: () => boolean | Promise<boolean>): Promise<void> {
  const found = await poll(async () => ((await look()) ? true : undefined), {
    everyMs: 2,
    signal: AbortSignal.timeout(60_000),
  });
  assert.ok(found, what);
}
const isRunning = (served: Served, restarts = 0) =>
  until('the container runs', async () => {
    const { containers, restarts: so } = await details(served);
    return containers[0]?.state === 'running' && so === restarts;
  });
const outcome = async (served: Served) =>
  v.parse(podOutcomeSchema, JSON.parse((await served.call('GET', '/v1/pods/_/web/wait')).body));

describe('a pod that the next process takes over', () => {
  test('continues in the same container, with its uid, start, events and restarts', async () => {
    const first = await openAdmin();
    await detach(first, always);
    first.parts.sandboxes.current('main').exit(1);
    await isRunning(first, 1);
    const before = await details(first);
    assert.deepEqual([before.restarts, before.phase], [1, 'Running']);
    await using second = await first.next();
    await second.parts.clock.settle();
    assert.deepEqual(await details(second), before);
    assert.equal(second.parts.sandboxes.runs.length, 1);
    const starts = second.parts.sandboxes.journal.filter((line) => line.startsWith('start'));
    assert.deepEqual(starts, ['start main/0', 'start main/1']);
  });

  test('is restarted after an exit that happened while no process ran, with the back-off it had reached', async () => {
    const first = await openAdmin();
    await detach(first, always);
    first.parts.sandboxes.current('main').exit(1);
    await isRunning(first, 1);
    const { sandboxes } = first.parts;
    await using second = await first.next({}, () => sandboxes.current('main').exit(1));
    const { clock } = second.parts;
    await clock.settle();
    const main = async () => (await details(second)).containers[0];
    assert.deepEqual([(await main())?.reason, (await main())?.restartCount], ['CrashLoopBackOff', 2]);
    await clock.advance(9_999);
    assert.equal((await main())?.state, 'waiting');
    await clock.advance(1);
    await isRunning(second, 2);
    assert.equal(sandboxes.current('main').spec.attempt, 2);
  });

  test('ends with the code of an exit that happened while no process ran', async () => {
    const first = await openAdmin();
    await detach(first, never);
    const { sandboxes } = first.parts;
    await using second = await first.next({}, () => sandboxes.current('main').exit(7));
    assert.deepEqual(await outcome(second), { exitCode: 7, reason: 'Error' });
    assert.deepEqual(sandboxes.list(), []);
    assert.deepEqual((await readdir(second.kept)).length, 1);
  });

  test('is removed at its end with removeAtEnd', async () => {
    const first = await openAdmin();
    await detach(first, never, { removeAtEnd: true });
    await using second = await first.next();
    assert.equal((await details(second)).phase, 'Running');
    const waiting = outcome(second);
    second.parts.sandboxes.current('main').exit(0);
    assert.equal((await waiting).exitCode, 0);
    assert.deepEqual(await readdir(second.kept), []);
  });

  test('keeps the node from ending as idle, and can be attached to, stopped and removed', async () => {
    const first = await openAdmin();
    await detach(first, never);
    await using second = await first.next();
    let isIdle = false;
    void second.server.idleFor(1000, new AbortController().signal).then(() => (isIdle = true));
    await second.parts.clock.advance(5000);
    assert.equal(isIdle, false);
    const messages = on(second.talk('/v1/pods/_/web/attach'));
    assert.match(String((await messages.next()).value?.[0]), /"event":"source"/);
    await second.parts.sandboxes.current('main').print('hello');
    const output = (await messages.next()).value?.[0] as Buffer;
    assert.equal(output.subarray(3).toString(), 'hello');
    assert.equal((await second.call('DELETE', '/v1/pods/_/web?force=true')).status, 200);
    assert.deepEqual(second.parts.sandboxes.list(), []);
    assert.deepEqual(await readdir(second.kept), []);
  });

  test('is left alone if only another podvm can take it over, and is listed as lost once its machine ends', async () => {
    const first = await openAdmin();
    await detach(first, always);
    await isRunning(first);
    const { sandboxes } = first.parts;
    let isLeft = true;
    await using second = await first.next({}, () => {
      const [sandbox] = sandboxes.list();
      const { status } = sandbox ?? assert.fail();
      const get = () => (isLeft ? { ...status, leftAlone: 'Cannot take over default/web' } : status);
      Object.defineProperty(sandbox, 'status', { get });
    });
    assert.equal(sandboxes.list().length, 1);
    const { owner, reason } = await details(second);
    assert.deepEqual([owner, reason], ['podvm', 'LeftAlone']);
    isLeft = false;
    sandboxes.crash('the VMM was killed');
    // Its machine is removed a moment before it is listed as ended.
    const isLost = async () => /"phase":"Failed"/.test((await second.call('GET', '/v1/pods/_/web')).body);
    await until('it is lost', async () => sandboxes.list().length === 0 && (await isLost()));
    assert.deepEqual((await readdir(second.kept)).length, 1);
  });

  test('continues to be stopped', async () => {
    const stubborn = { behaviours: { main: { onTerm: () => {} } } };
    const first = await openAdmin(stubborn);
    await detach(first, never);
    const stopping = first.call('POST', '/v1/pods/_/web/stop', '{"graceSeconds":60}').catch(() => undefined);
    await until('it is being stopped', () => first.parts.sandboxes.journal.includes('stop main/0'));
    await using second = await first.next();
    await stopping;
    await second.parts.clock.settle();
    assert.equal((await details(second)).phase, 'Terminating');
    const waiting = outcome(second);
    await second.parts.clock.advance(60_000);
    assert.equal((await waiting).exitCode, 137);
  });

  test('probes again, runs no hook twice, and is not started a second time', async () => {
    const hooks = 'lifecycle: { postStart: { exec: { command: [hook] } } }';
    const probe = 'readinessProbe: { exec: { command: [ready] }, periodSeconds: 5 }';
    const first = await openAdmin();
    await detach(first, manifest(`{ containers: [{ name: main, image: i, ${hooks}, ${probe} }] }`));
    await until('it is ready', async () => {
      await first.parts.clock.advance(1);
      return (await details(first)).ready === '1/1';
    });
    const { journal } = first.parts.sandboxes;
    const count = (line: string) => journal.filter((each) => each === line).length;
    assert.equal(count('exec main/0 hook'), 1);
    const probes = count('exec main/0 ready');
    await using second = await first.next();
    await second.parts.clock.advance(5000);
    assert.equal((await details(second)).ready, '1/1');
    assert.deepEqual([count('exec main/0 hook'), count('start main/0')], [1, 1]);
    assert.ok(count('exec main/0 ready') > probes);
  });

  test('fails with the reason if its machine ended meanwhile', async () => {
    const first = await openAdmin();
    await detach(first, always);
    const { sandboxes } = first.parts;
    await using second = await first.next({}, () => sandboxes.crash('the VMM was killed'));
    assert.deepEqual(await outcome(second), {
      exitCode: 125,
      reason: 'SandboxFailed',
      message: 'the VMM was killed',
    });
  });

  test('cannot restart a container that needs a Secret, and reports why', async () => {
    const secret = 'env: [{ name: A, valueFrom: { secretKeyRef: { name: s, key: k } } }]';
    const text = manifest(
      `{ containers: [{ name: main, image: i, ${secret} }] }`,
      '---\napiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { k: hidden }\n',
    );
    const first = await openAdmin();
    await detach(first, text);
    const { kept } = first;
    await using second = await first.next({}, async () => {
      const files = await readdir(kept, { recursive: true, withFileTypes: true });
      for (const { parentPath, name } of files.filter((entry) => entry.isFile())) {
        assert.doesNotMatch(await readFile(join(parentPath, name), 'utf8'), /hidden/);
      }
    });
    assert.equal((await details(second)).phase, 'Running');
    const { message } = await refusalOf(second, 'POST', '/v1/pods/_/web/restart', '{}');
    assert.match(message, /its Secrets ended with the node/);
    assert.equal((await details(second)).phase, 'Running', 'it is not stopped for nothing');
    const waiting = outcome(second);
    second.parts.sandboxes.current('main').exit(1);
    assert.match((await waiting).message ?? '', /Cannot use the Secret default\/s: it ended with the node/);
  });
});

describe('a pod that was started with logins of its user', () => {
  const logins = [{ registry: 'r.example', username: 'shop', password: 'hidden' }];
  /** A registry that wants a login from the second attempt on. */
  const settings = (isDenied: (attempt: number) => boolean): FakeSettings => ({
    behaviours: {
      main: {
        createError: (attempt) =>
          isDenied(attempt) ? new PodvmError('denied', 'Cannot pull i: the registry wants credentials') : undefined,
      },
    },
  });

  test('uses them for its containers, and writes them to no file', async () => {
    const first = await openAdmin();
    await detach(first, always, { logins });
    assert.deepEqual(first.parts.sandboxes.current('main').spec.pullLogins, logins);
    const { kept } = first;
    await using second = await first.next({}, async () => {
      const files = await readdir(kept, { recursive: true, withFileTypes: true });
      for (const { parentPath, name } of files.filter((entry) => entry.isFile())) {
        assert.doesNotMatch(await readFile(join(parentPath, name), 'utf8'), /hidden|shop/);
      }
    });
    second.parts.sandboxes.current('main').exit(1);
    await isRunning(second, 1);
    assert.equal(second.parts.sandboxes.current('main').spec.pullLogins, undefined);
    assert.equal((await second.call('POST', '/v1/pods/_/web/restart', '{}')).status, 200);
  });

  test('reports that they ended with its node when a registry requires them again', async () => {
    const first = await openAdmin(settings((attempt) => attempt > 0));
    await detach(first, always, { logins });
    await using second = await first.next();
    const waiting = outcome(second);
    second.parts.sandboxes.current('main').exit(1);
    const { reason, message = '' } = await waiting;
    assert.equal(reason, 'ErrImagePull');
    assert.match(
      message,
      /^Cannot use the logins with which the pod was started: they ended with its node: Cannot pull i/,
    );
  });

  test('reports the registry’s message while its node has them', async () => {
    await using served = await openAdmin(settings((attempt) => attempt > 0));
    await detach(served, always, { logins });
    const waiting = outcome(served);
    served.parts.sandboxes.current('main').exit(1);
    assert.match((await waiting).message ?? '', /^Cannot pull i/);
  });
});

test('a client of a pod that is left to the next process is told how to continue', async () => {
  const first = await openAdmin();
  const events = await begin(first, never, {});
  for await (const event of events) if ((event['detail'] as { reason?: string })?.reason === 'Started') break;
  const waiting = first.call('GET', '/v1/pods/_/web/wait');
  const attaching = eventsOf(first.talk('/v1/pods/_/web/attach'));
  assert.equal((await attaching.next()).value?.['event'], 'source');
  const attached = Array.fromAsync(attaching);
  await using second = await first.next();
  assert.match(JSON.stringify((await attached).at(-1)), /"failed".*the pod keeps running.*podvm attach web/);
  assert.match((await waiting).body, /the pod keeps running/);
  assert.equal((await details(second)).phase, 'Running');
});

test('a sandbox without a record, and a record without a sandbox, are removed', async () => {
  const first = await openAdmin();
  await detach(first, never);
  const { sandboxes } = first.parts;
  const second = await first.next({}, async () => {
    for (const id of await readdir(first.kept)) await writeFile(join(first.kept, id, 'live.json'), '{"version":1');
  });
  assert.deepEqual(sandboxes.list(), []);
  assert.equal((await outcome(second)).reason, 'Lost');
  assert.equal((await second.call('POST', '/v1/pods/_/web/start', '{}')).status, 200);
  await using third = await second.next({}, async () => await sandboxes.list()[0]?.remove());
  assert.equal((await outcome(third)).reason, 'Lost');
});

describe('after a boot of the host', () => {
  const reboot = (served: Served, options: object) =>
    served.next(options, async () => await served.parts.sandboxes.list()[0]?.remove());

  test('a pod with restartPolicy Always is started again by a daemon, once', async () => {
    const first = await openAdmin();
    await detach(first, always);
    const second = await reboot(first, nextBoot);
    await second.parts.clock.settle();
    await until('a second machine', () => second.parts.sandboxes.runs.length === 2);
    await isRunning(second);
    await using third = await reboot(second, nextBoot);
    await third.parts.clock.settle();
    assert.equal((await outcome(third)).reason, 'Lost', 'its end was not that of the host');
  });

  test('others are lost: of other policies, stopped ones, those of a background node, and those with Secrets', async () => {
    const secret = '---\napiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { k: hidden }\n';
    const background = { keeping: { bootId: 'the next boot', startsAfterBoot: false } };
    for (const [text, options] of [
      [never, nextBoot],
      [always, background],
      [`${always}${secret}`, nextBoot],
    ] as const) {
      const first = await openAdmin();
      await detach(first, text);
      await using second = await reboot(first, options);
      await second.parts.clock.settle();
      assert.equal((await outcome(second)).reason, 'Lost');
      assert.equal(second.parts.sandboxes.runs.length, 1);
    }
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { open, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { objectSummarySchema } from '#api/objects.ts';
import { podSummarySchema } from '#api/pods.ts';
import { poll } from '#host/wait.ts';
import { eventsOf, jobText, openAdmin, type Served, talk } from '../testing/served-admin.ts';

const pods = async (served: Served) =>
  v.parse(v.array(podSummarySchema), JSON.parse((await served.call('GET', '/v1/pods?ended=true')).body));
const started = async (served: Served, count: number) => {
  const { sandboxes } = served.parts; // a pod is listed before it has a container
  const isSo = async () =>
    (await pods(served)).length === count && sandboxes.running().length === 1 ? true : undefined;
  assert.ok(await poll(isSo, { everyMs: 5, signal: AbortSignal.timeout(60_000) }), `${count} pods`);
};
const jobStatus = async (served: Served) => {
  const objects = v.parse(v.array(objectSummarySchema), JSON.parse((await served.call('GET', '/v1/objects')).body));
  return objects.map(({ status }) => status).join();
};
const untilStatus = async (served: Served, status: string) => {
  const isSo = async () => ((await jobStatus(served)) === status ? true : undefined);
  const found = await poll(isSo, { everyMs: 5, signal: AbortSignal.timeout(60_000) });
  assert.ok(found, `${await jobStatus(served)}, not ${status}`);
};

/** Makes a disk slow that is asked to have all of a file. */
async function slowDown(t: TestContext): Promise<void> {
  await using file = await open('/dev/null');
  t.mock.method(Object.getPrototypeOf(file), 'sync', () => delay(300));
}

describe('a Job after the end of its node', () => {
  test('has its outcome on record, also when its node ends at once', async (t) => {
    const first = await openAdmin();
    await talk(first, 'apply', jobText().replace('completions: 2', 'completions: 1'));
    await started(first, 1);
    await slowDown(t);
    first.parts.sandboxes.current('main').exit(0);
    await untilStatus(first, 'complete, 1 succeeded');
    const jobs = join(dirname(first.kept), 'jobs');
    await using _second = await first.next({}, async () => {
      const [file = ''] = await readdir(jobs);
      assert.match(await readFile(join(jobs, file), 'utf8'), /"outcome":\{"exitCode":0,/);
    });
  });

  test('has counted its pods before what is kept of them is removed, as with --rm', async (t) => {
    await using served = await openAdmin();
    const socket = served.talk('/v1/run');
    await once(socket, 'open');
    const files = [{ name: 'f', text: jobText() }];
    socket.send(JSON.stringify({ files, network: 'none', detach: true, removeAtEnd: true }));
    assert.deepEqual((await Array.fromAsync(eventsOf(socket))).at(-1), { event: 'finished', exitCode: 0 });
    const kept = async () => (await readdir(served.kept))[0]; // made while the pod starts
    const first = await poll(kept, { everyMs: 5, signal: AbortSignal.timeout(60_000) });
    assert.ok(first !== undefined, 'it is kept');
    await slowDown(t);
    served.parts.sandboxes.current('main').exit(0);
    const isGone = async () => ((await readdir(served.kept)).includes(first) ? undefined : true);
    assert.ok(await poll(isGone, { everyMs: 5, signal: AbortSignal.timeout(60_000) }), 'it is removed');
    const jobs = join(dirname(served.kept), 'jobs');
    const [file = ''] = (await readdir(jobs)).filter((name) => name.endsWith('.json'));
    assert.match(await readFile(join(jobs, file), 'utf8'), /"succeeded":1,/);
    await started(served, 1);
    served.parts.sandboxes.current('main').exit(0);
    const isOver = async () => ((await pods(served)).length === 0 ? true : undefined);
    assert.ok(await poll(isOver, { everyMs: 5, signal: AbortSignal.timeout(60_000) }), 'nothing is kept');
  });

  test('goes on with the next node, and does not run again once it is complete', async () => {
    const first = await openAdmin();
    await talk(first, 'apply', jobText());
    await started(first, 1);
    const { sandboxes } = first.parts;
    const second = await first.next({}, () => sandboxes.current('main').exit(0));
    await started(second, 2);
    sandboxes.current('main').exit(0);
    await untilStatus(second, 'complete, 2 succeeded');
    await using third = await second.next();
    assert.equal(await jobStatus(third), 'complete, 2 succeeded');
    for (const { name } of await pods(third)) await third.call('DELETE', `/v1/pods/_/${name}`);
    assert.deepEqual((await talk(third, 'apply', jobText())).objects, ['Job default/pi unchanged']);
    await third.parts.clock.advance(400_000);
    assert.deepEqual(await pods(third), []);
    assert.equal(await jobStatus(third), 'complete');
    assert.deepEqual((await talk(third, 'delete', jobText())).objects, ['Job default/pi deleted']);
    assert.equal(await jobStatus(third), '');
  });

  test('goes on after a boot of the host, where a pod that was lost has not failed', async () => {
    const first = await openAdmin();
    const text = jobText().replace('completions: 2', 'completions: 3').replace('name: main', 'name: long');
    await talk(first, 'apply', text);
    await started(first, 1);
    const nextBoot = { keeping: { bootId: 'the next boot', startsAfterBoot: true } };
    const { sandboxes } = first.parts;
    await using second = await first.next(nextBoot, async () => {
      for (const sandbox of sandboxes.list()) await sandbox.remove();
    });
    for (let count = 2; count <= 4; count += 1) {
      await started(second, count);
      sandboxes.current('long').exit(0);
    }
    await untilStatus(second, 'complete, 3 succeeded, 1 failed');
  });

  test('with Secrets ends after its node when it needs another pod', async () => {
    const secret = `{ apiVersion: v1, kind: Secret, metadata: { name: key }, stringData: { key: hidden } }\n---`;
    const text = `${secret}${jobText(', envFrom: [{ secretRef: { name: key } }]')}`;
    const first = await openAdmin();
    await talk(first, 'apply', text);
    await started(first, 1);
    const { sandboxes } = first.parts;
    await using second = await first.next({}, async () => {
      const [file = ''] = await readdir(join(dirname(first.kept), 'jobs'));
      assert.doesNotMatch(await readFile(join(dirname(first.kept), 'jobs', file), 'utf8'), /hidden|aGlkZGVu/);
    });
    sandboxes.current('main').exit(0);
    await untilStatus(second, 'failed: FailedCreate, 1 succeeded');
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { poll } from '#host/wait.ts';
import { eventsOf, openAdmin, type Served, talk } from '../testing/served-admin.ts';

/** The fake clock begins at midnight of 2026-01-01, UTC. */
const midnight = Date.UTC(2026, 0, 1);
const minutes = (count: number) => count * 60_000;
const jobAt = (ms: number) => `dump-${ms / 60_000}`;

const cronJob = (spec = '', { schedule = '*/10 * * * *', volumes = '' } = {}) => `
apiVersion: batch/v1
kind: CronJob
metadata: { name: dump }
spec:
  schedule: '${schedule}'
  timeZone: Etc/UTC
  ${spec}
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec: { restartPolicy: Never, terminationGracePeriodSeconds: 0, ${volumes} containers: [{ name: main, image: i }] }
`;
const quick = (code = 0) => ({
  behaviours: { main: { onStart: (it: { exit: (exitCode: number) => void }) => it.exit(code) } },
});

async function jobsOf(served: Served): Promise<readonly string[]> {
  const { body } = await served.call('GET', '/v1/pods?ended=true');
  const pods = JSON.parse(body) as { labels?: Record<string, string> }[];
  return pods.map(({ labels = {} }) => labels['batch.kubernetes.io/job-name'] ?? '').toSorted();
}

/** Waits until these Jobs have pods, that run or have ended. */
async function untilJobs(served: Served, ...jobs: readonly string[]): Promise<void> {
  const isSo = async () => ((await jobsOf(served)).join() === jobs.join() ? true : undefined);
  const found = await poll(isSo, { everyMs: 5, signal: AbortSignal.timeout(60_000) });
  assert.ok(found, `${(await jobsOf(served)).join()} instead of ${jobs.join()}`);
}

/** Waits until the pods that run are one of this Job. */
async function untilRunning(served: Served, job: string): Promise<void> {
  const live = async () => {
    const pods = JSON.parse((await served.call('GET', '/v1/pods')).body) as { labels?: Record<string, string> }[];
    return pods.map(({ labels }) => labels?.['batch.kubernetes.io/job-name']).join();
  };
  const isSo = async () => ((await live()) === job ? true : undefined);
  assert.ok(await poll(isSo, { everyMs: 5, signal: AbortSignal.timeout(60_000) }), await live());
}

describe('a CronJob', () => {
  test('begins a Job whenever it is due, keeps as many as it wants, and ends with delete', async () => {
    await using served = await openAdmin(quick());
    const text = cronJob('successfulJobsHistoryLimit: 2');
    assert.deepEqual((await talk(served, 'diff', text)).last, { event: 'finished', exitCode: 1 });
    assert.deepEqual((await talk(served, 'apply', text)).objects, ['CronJob default/dump created']);
    assert.deepEqual((await talk(served, 'apply', text)).objects, ['CronJob default/dump unchanged']);
    assert.deepEqual((await talk(served, 'diff', text)).last, { event: 'finished', exitCode: 0 });
    await served.parts.clock.advance(minutes(9));
    assert.deepEqual(await jobsOf(served), []);
    const names = [10, 20, 30].map((count) => jobAt(midnight + minutes(count)));
    await served.parts.clock.advance(minutes(1));
    await untilJobs(served, ...names.slice(0, 1));
    for (const end of [2, 3]) {
      await served.parts.clock.advance(minutes(10));
      await untilJobs(served, ...names.slice(end - 2, end)); // the older ones are removed
    }
    assert.deepEqual((await talk(served, 'delete', text)).objects, ['CronJob default/dump deleted']);
    await untilJobs(served);
    await served.parts.clock.advance(minutes(20));
    assert.deepEqual(await jobsOf(served), []);
  });

  test('leaves a Job alone whose name only looks like that of one of its own', async () => {
    await using served = await openAdmin(quick());
    const template = `{ spec: { restartPolicy: Never, containers: [{ name: main, image: i }] } }`;
    const own = `{ apiVersion: batch/v1, kind: Job, metadata: { name: dump-1 }, spec: { template: ${template} } }`;
    await talk(served, 'apply', own);
    await untilJobs(served, 'dump-1');
    const text = cronJob('successfulJobsHistoryLimit: 0');
    await talk(served, 'apply', text);
    await served.parts.clock.advance(minutes(10));
    await untilJobs(served, 'dump-1');
    await talk(served, 'delete', text);
    assert.deepEqual(await jobsOf(served), ['dump-1']);
  });

  test('keeps fewer failed Jobs, as Kubernetes does by default', async () => {
    await using served = await openAdmin(quick(1));
    await talk(served, 'apply', cronJob());
    for (const count of [10, 20]) {
      await served.parts.clock.advance(minutes(10));
      await untilJobs(served, jobAt(midnight + minutes(count)));
    }
  });

  test('keeps the tries of a Job that waits for the next one', async () => {
    let starts = 0;
    const failures = 6;
    const onStart = (it: { exit: (exitCode: number) => void }) => {
      starts += 1;
      it.exit(starts <= failures ? 1 : 0);
    };
    await using served = await openAdmin({ behaviours: { main: { onStart } } });
    const { clock } = served.parts;
    await talk(served, 'apply', cronJob('failedJobsHistoryLimit: 0').replace('backoffLimit: 0', 'backoffLimit: 9'));
    await clock.advance(minutes(10));
    const untilEnded = async (count: number) => {
      const isSo = async () => {
        const { body } = await served.call('GET', '/v1/pods?ended=true');
        const pods = JSON.parse(body) as { endedAt?: string }[];
        const ended = pods.filter(({ endedAt }) => endedAt !== undefined);
        if (ended.length >= count) return true;
        // Tries wait for 10 s, 20 s, ... 160 s. No time passes while one runs, however long its files take.
        if (ended.length === pods.length) await clock.advance(5000);
        return undefined;
      };
      assert.ok(await poll(isSo, { everyMs: 2, signal: AbortSignal.timeout(60_000) }), `${starts} tries`);
    };
    await untilEnded(failures);
    await clock.advance(minutes(20) - (clock.now() - midnight)); // while the seventh try waits, the next Job is due
    await untilEnded(failures + 1);
    await talk(served, 'apply', cronJob('failedJobsHistoryLimit: 0').replace('backoffLimit: 0', 'backoffLimit: 9'));
    await clock.settle();
    const first = jobAt(midnight + minutes(10));
    assert.equal((await jobsOf(served)).filter((name) => name === first).length, failures);
  });

  test('begins no second Job beside the first with Forbid, and ends the first with Replace', async () => {
    await using served = await openAdmin();
    await talk(served, 'apply', cronJob('concurrencyPolicy: Forbid'));
    await served.parts.clock.advance(minutes(10));
    const first = jobAt(midnight + minutes(10));
    await untilJobs(served, first);
    await served.parts.clock.advance(minutes(20));
    await untilJobs(served, first);
    const replace = await talk(served, 'apply', cronJob('concurrencyPolicy: Replace'));
    assert.deepEqual(replace.objects, ['CronJob default/dump configured']);
    await untilRunning(served, jobAt(midnight + minutes(30)));
  });

  test('is not due while it is suspended, and then only within its deadline', async () => {
    await using served = await openAdmin(quick());
    await talk(served, 'apply', cronJob('suspend: true'));
    await served.parts.clock.advance(minutes(15));
    assert.deepEqual(await jobsOf(served), []);
    await talk(served, 'apply', cronJob('startingDeadlineSeconds: 200'));
    await served.parts.clock.advance(minutes(1));
    assert.deepEqual(await jobsOf(served), [], 'five minutes are too late');
    await served.parts.clock.advance(minutes(4));
    await untilJobs(served, jobAt(midnight + minutes(20)));
  });

  test('goes on with the next node, which makes up for the newest Job that was due meanwhile', async () => {
    const before = await openAdmin(quick());
    await talk(before, 'apply', cronJob());
    await using served = await before.next({}, () => before.parts.clock.advance(minutes(35)));
    await untilJobs(served, jobAt(midnight + minutes(30)));
    await served.parts.clock.advance(minutes(5));
    await untilJobs(served, jobAt(midnight + minutes(30)), jobAt(midnight + minutes(40)));
  });

  test('goes on with Replace at the next node, which ends the Job of the node before', async () => {
    const before = await openAdmin();
    await talk(before, 'apply', cronJob('concurrencyPolicy: Replace'));
    await before.parts.clock.advance(minutes(10));
    await untilJobs(before, jobAt(midnight + minutes(10)));
    await using served = await before.next();
    await served.parts.clock.advance(minutes(10));
    await untilRunning(served, jobAt(midnight + minutes(20)));
  });

  test('begins no Job again that a node has begun and could not record', async () => {
    const before = await openAdmin();
    await talk(before, 'apply', cronJob());
    await before.parts.clock.advance(minutes(10));
    await untilJobs(before, jobAt(midnight + minutes(10)));
    const path = join(dirname(before.kept), 'cron-jobs.json');
    const forget = async () =>
      await writeFile(path, (await readFile(path, 'utf8')).replace(/"handledMs":\d+/, `"handledMs":${midnight}`));
    await using served = await before.next({}, forget);
    await served.parts.clock.advance(minutes(1));
    await untilJobs(served, jobAt(midnight + minutes(10)));
    await served.parts.clock.advance(minutes(9));
    await untilJobs(served, jobAt(midnight + minutes(10)), jobAt(midnight + minutes(20)));
  });

  test('is left to the next node by a process that ends with its command', async () => {
    const before = await openAdmin(quick());
    await talk(before, 'apply', cronJob());
    await using served = await before.next({ mayDetach: false }, () => before.parts.clock.advance(minutes(15)));
    await served.parts.clock.advance(minutes(30));
    assert.deepEqual(await jobsOf(served), []);
  });

  test('makes up for nothing that a changed schedule would have made due before', async () => {
    await using served = await openAdmin(quick());
    await talk(served, 'apply', cronJob('', { schedule: '0 0 * * *' }));
    await served.parts.clock.advance(minutes(15));
    await talk(served, 'apply', cronJob());
    await served.parts.clock.advance(minutes(1));
    assert.deepEqual(await jobsOf(served), []);
    await served.parts.clock.advance(minutes(4));
    await untilJobs(served, jobAt(midnight + minutes(20)));
  });

  test('begins nothing after a drain until it is applied again, and keeps no node from its end', async () => {
    await using served = await openAdmin(quick());
    await talk(served, 'apply', cronJob());
    await served.call('POST', '/v1/drain', '{"graceSeconds":0}');
    await served.parts.clock.advance(minutes(15));
    assert.deepEqual(await jobsOf(served), []);
    let isIdle = false;
    void served.server.idleFor(1, new AbortController().signal).then(() => (isIdle = true));
    const idle = async () => {
      await served.parts.clock.advance(10);
      return isIdle || undefined;
    };
    assert.ok(await poll(idle, { everyMs: 5, signal: AbortSignal.timeout(60_000) }), 'it is idle');
    await talk(served, 'apply', cronJob());
    await served.parts.clock.advance(minutes(1));
    assert.deepEqual(await jobsOf(served), []);
    await served.parts.clock.advance(minutes(4));
    await untilJobs(served, jobAt(midnight + minutes(20)));
  });

  test('with Secrets begins nothing after the end of its node until it is applied again', async () => {
    const secret = `{ apiVersion: v1, kind: Secret, metadata: { name: key }, stringData: { key: hidden } }\n---`;
    const text = `${secret}${cronJob('', { volumes: 'volumes: [{ name: key, secret: { secretName: key } }],' })}`;
    const before = await openAdmin(quick());
    await talk(before, 'apply', text);
    await using served = await before.next();
    await served.parts.clock.advance(minutes(10));
    assert.deepEqual(await jobsOf(served), []);
    await talk(served, 'apply', text);
    await served.parts.clock.advance(minutes(10));
    await untilJobs(served, jobAt(midnight + minutes(20)));
  });

  test('whose user’s logins ended with its node says so when a registry wants them', async () => {
    const createError = () => new PodvmError('denied', 'Cannot pull i: the registry wants credentials');
    const before = await openAdmin({ behaviours: { main: { createError } } });
    const socket = before.talk('/v1/apply');
    await once(socket, 'open');
    const logins = [{ registry: 'r.example', username: 'shop', password: 'hidden' }];
    socket.send(JSON.stringify({ files: [{ name: 'f', text: cronJob() }], network: 'none', logins }));
    for await (const { event } of eventsOf(socket)) if (event === 'finished') break;
    await using served = await before.next({}, async () => {
      const kept = await readFile(join(dirname(before.kept), 'cron-jobs.json'), 'utf8');
      assert.doesNotMatch(kept, /hidden|shop/);
    });
    await served.parts.clock.advance(minutes(10));
    const says = async () => {
      const { body } = await served.call('GET', '/v1/events?follow=false');
      return body.includes('Cannot use the logins with which the pod was started') || undefined;
    };
    assert.ok(await poll(says, { everyMs: 5, signal: AbortSignal.timeout(60_000) }));
  });

  test('is refused with a schedule or time zone that there is not, and skipped by run', async () => {
    await using served = await openAdmin();
    for (const [text, why] of [
      [cronJob('', { schedule: '61 * * * *' }), /spec\.schedule: must have five fields/],
      [cronJob('', { schedule: '0 0 31 2 *' }), /spec\.schedule: is never due/],
      [cronJob('', { schedule: '* * * * * *' }), /spec\.schedule: must have five fields/],
      [cronJob('', { schedule: 'TZ=UTC 0 0 * * *' }), /spec\.schedule: must have five fields/],
      [cronJob().replace('Etc/UTC', 'Mars/Base'), /spec\.timeZone: must be a time zone/],
      [cronJob('concurrencyPolicy: Never'), /spec\.concurrencyPolicy/],
    ] as const)
      assert.match(JSON.stringify((await talk(served, 'apply', text)).last), why);
    const { events } = await talk(served, 'run', cronJob());
    assert.match(JSON.stringify(events[0]), /CronJob default\/dump is skipped: `podvm apply -f`/);
  });
});

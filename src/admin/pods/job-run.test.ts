import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createFakeClock } from '#pod/testing/fake-clock.ts';
import { parseManifest } from '#pod/manifest/manifest.ts';
import type { PodFinish, PodStatus } from '#pod/pods.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { JobProgress } from '../record/job-record.ts';
import { type BegunJob, JobRun } from './job-run.ts';
import type { LivePod } from './known-pod.ts';

/** A pod that the test ends. */
interface FakePod {
  readonly pod: Pod;
  readonly end: (exitCode: number, reason?: string) => void;
  readonly restarts: (count: number) => void;
}

async function runJob(spec: string, { policy = 'Never', before }: { policy?: string; before?: BegunJob } = {}) {
  const template = `template: { spec: { restartPolicy: ${policy}, containers: [{ name: c, image: i }] } }`;
  const text = `apiVersion: batch/v1\nkind: Job\nmetadata: { name: pi }\nspec: { ${template}, ${spec} }\n`;
  const [job] = parseManifest(text, 'f').jobs;
  assert.ok(job !== undefined);
  const clock = createFakeClock();
  const pods: FakePod[] = [];
  const ended: string[] = [];
  const saved: JobProgress[] = [];
  const start = (pod: Pod): LivePod => {
    const { promise: over, resolve } = Promise.withResolvers<PodFinish>();
    const end = (exitCode: number, reason = exitCode === 0 ? 'Completed' : 'Error') => resolve({ exitCode, reason });
    let restarts = 0;
    let tell: (status: PodStatus) => void = () => {};
    const status = () =>
      ({ containers: [{ restartCount: restarts, lastState: { exitCode: 5 } }] }) as unknown as PodStatus; // SAFE: a JobRun reads no more
    const stop = (how: string) => async () => {
      ended.push(how);
      end(143, 'Terminated');
      return await over;
    };
    const running = {
      get status() {
        return status();
      },
      onChange: (listener: typeof tell) => {
        tell = listener;
        return () => (tell = () => {});
      },
      terminate: stop('terminate'),
      kill: stop('kill'),
    };
    pods.push({
      pod,
      end,
      restarts: (count) => {
        restarts = count;
        tell(status());
      },
    });
    return { pod: running, over } as unknown as LivePod; // SAFE: a JobRun uses no more
  };
  const save = async (progress: JobProgress) => void saved.push(progress);
  const run = new JobRun(job, { clock, start, save }, before);
  await run.begun;
  return { run, pods, ended, clock, saved };
}

describe('a Job', () => {
  test('has one pod by default, and its code', async () => {
    const { run, pods } = await runJob('backoffLimit: 0');
    assert.equal(pods.length, 1);
    assert.match(pods[0]?.pod.metadata.name ?? '', /^pi-[0-9a-f]{6}$/);
    pods[0]?.end(3);
    assert.deepEqual(await run.finished, { exitCode: 3, reason: 'BackoffLimitExceeded' });
  });

  test('runs as many pods at a time as it wants, until enough have succeeded', async () => {
    const { run, pods, clock } = await runJob('completions: 5, parallelism: 2');
    for (const [at, count] of [2, 3, 4, 5, 5].entries()) {
      assert.equal(pods.length, count);
      pods[at]?.end(0);
      await clock.settle();
    }
    assert.deepEqual(await run.finished, { exitCode: 0, reason: 'Completed' });
  });

  test('tries again after 10 s, 20 s, 40 s, at most six minutes, and gives up past its limit', async () => {
    const { run, pods, clock } = await runJob('backoffLimit: 8');
    for (const [at, seconds] of [10, 20, 40, 80, 160, 320, 360, 360].entries()) {
      pods[at]?.end(1);
      await clock.settle();
      await clock.advance(seconds * 1000 - 1);
      assert.equal(pods.length, at + 1);
      await clock.advance(1);
      assert.equal(pods.length, at + 2);
    }
    pods[8]?.end(7);
    assert.deepEqual(await run.finished, { exitCode: 7, reason: 'BackoffLimitExceeded' });
  });

  test('with indexes gives each to one pod, and a failed one again', async () => {
    const { run, pods, clock } = await runJob('completionMode: Indexed, completions: 3, parallelism: 2');
    const indexes = () =>
      pods.map(({ pod }) => pod.spec.containers[0]?.env.find(({ name }) => name === 'JOB_COMPLETION_INDEX')?.value);
    pods[0]?.end(1);
    await clock.settle();
    await clock.advance(10_000);
    assert.deepEqual(indexes(), ['0', '1', '0']);
    assert.match(pods[2]?.pod.metadata.name ?? '', /^pi-0-/);
    pods[1]?.end(0);
    pods[2]?.end(0);
    await clock.settle();
    assert.deepEqual(indexes(), ['0', '1', '0', '2']);
    pods[3]?.end(0);
    assert.equal((await run.finished).exitCode, 0);
  });

  test('counts restarts of containers, and ends the pod that has too many', async () => {
    const { run, pods, ended } = await runJob('backoffLimit: 2', { policy: 'OnFailure' });
    pods[0]?.restarts(1);
    assert.deepEqual(ended, []);
    pods[0]?.restarts(2);
    assert.deepEqual(await run.finished, { exitCode: 5, reason: 'BackoffLimitExceeded' });
    assert.deepEqual(ended, ['terminate']);
  });

  test('ends its pods past its deadline, on request, and when a user ends one of them', async () => {
    const late = await runJob('activeDeadlineSeconds: 60');
    await late.clock.advance(60_000);
    assert.deepEqual(await late.run.finished, { exitCode: 124, reason: 'DeadlineExceeded' });
    const stopped = await runJob('completions: 4, parallelism: 2');
    stopped.run.stop('kill');
    assert.equal((await stopped.run.finished).reason, 'Terminated');
    assert.deepEqual([stopped.ended, stopped.pods.length], [['kill', 'kill'], 2]);
    const byUser = await runJob('completions: 4, parallelism: 2');
    byUser.pods[1]?.end(137, 'Killed');
    assert.deepEqual(await byUser.run.finished, { exitCode: 137, reason: 'Killed' });
    assert.deepEqual([byUser.ended, byUser.pods.length], [['terminate'], 2]);
  });

  test('is on record with the pods that start next, and with what those before came to', async () => {
    const { pods, clock, saved } = await runJob('completionMode: Indexed, completions: 3, parallelism: 2');
    assert.equal(saved.at(-1)?.active.length, 2);
    pods[0]?.end(1);
    await clock.settle();
    const [, second] = pods.map(({ pod }) => pod.metadata.name);
    assert.deepEqual(saved.at(-1), {
      ...{ active: [{ name: second, index: 1 }], again: [0], nextIndex: 2, succeeded: 0, failed: 1 },
      ...{ startedMs: clock.now(), notBeforeMs: clock.now() + 10_000 },
    });
  });

  test('goes on after its node: counts what has ended since, and gives lost pods another try', async () => {
    const first = await runJob('completionMode: Indexed, completions: 5, parallelism: 3, backoffLimit: 1');
    for (const { end } of first.pods.slice(0, 1)) end(0);
    await first.clock.settle();
    const progress = first.saved.at(-1) ?? assert.fail();
    assert.deepEqual([progress.succeeded, progress.active.map(({ index }) => index)], [1, [1, 2, 3]]);
    first.run.leave();
    const outcomes = [{ exitCode: 0, reason: 'Completed' }, { exitCode: 4, reason: 'Error' }, undefined];
    const find = async () => outcomes.shift();
    const { run, pods, clock, saved } = await runJob(
      'completionMode: Indexed, completions: 5, parallelism: 3, backoffLimit: 1',
      { before: { progress, find } },
    );
    await clock.settle();
    const now = saved.at(-1);
    assert.deepEqual([now?.succeeded, now?.failed, now?.again], [2, 1, [2, 3]]);
    await clock.advance(10_000);
    const indexes = pods.map(({ pod }) => pod.metadata.annotations['batch.kubernetes.io/job-completion-index']);
    assert.deepEqual(indexes.map(String).toSorted(), ['2', '3', '4']);
    for (const { end } of pods) end(0);
    assert.deepEqual(await run.finished, { exitCode: 0, reason: 'Completed' });
    assert.deepEqual(saved.at(-1)?.outcome, { exitCode: 0, reason: 'Completed' });
  });

  test('is no longer ended by a node that has left it, such as for a client whose connection ends then', async () => {
    const { run, ended, saved } = await runJob('completions: 2');
    run.leave();
    run.stop('terminate');
    assert.deepEqual([ended, saved.at(-1)?.outcome], [[], undefined]);
  });

  test('goes on waiting and towards its deadline after its node, and ends what it was ending', async () => {
    const first = await runJob('activeDeadlineSeconds: 60, backoffLimit: 3');
    first.pods[0]?.end(1);
    await first.clock.settle();
    const progress = first.saved.at(-1) ?? assert.fail();
    const find = async () => undefined;
    const spec = 'activeDeadlineSeconds: 60, backoffLimit: 3';
    const { pods, clock, run } = await runJob(spec, { before: { progress, find } });
    await clock.advance(9_999);
    assert.equal(pods.length, 0);
    await clock.advance(1);
    assert.equal(pods.length, 1);
    await clock.advance(50_000);
    assert.equal((await run.finished).reason, 'DeadlineExceeded');
    const outcome = { exitCode: 143, reason: 'Terminated' };
    const ending = await runJob(spec, { before: { progress: { ...progress, outcome }, find } });
    assert.deepEqual([await ending.run.finished, ending.pods], [outcome, []]);
  });
});

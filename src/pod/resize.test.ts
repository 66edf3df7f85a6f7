import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { resizeInPlace, withSize } from './resize.ts';
import { startFakePod } from './testing/started-pod.ts';

const mib = 2 ** 20;
const soon = () => AbortSignal.timeout(60_000);
const limited = (name: string, more = '') =>
  `{ name: ${name}, image: i, resources: { limits: { memory: 64Mi, cpu: 500m }${more} } }`;

/** A pod of two containers with limits, which both run. */
async function running(settings: Parameters<typeof startFakePod>[1] = {}, more = '', ofPod = '') {
  const pod = startFakePod(`{ ${ofPod}containers: [${limited('a', more)}, ${limited('b')}] }`, settings);
  await pod.clock.advance(0);
  assert.deepEqual(pod.sandboxes.running(), ['a', 'b']);
  const journal = () => pod.sandboxes.journal.filter((line) => /^(?:update|resize sandbox) /.test(line));
  return { ...pod, journal, resize: (size: object) => pod.running.resize({ container: 'a', ...size }, soon()) };
}

test('resize() grows the pod before its container, and shrinks it after', async () => {
  const { resize, journal, running: pod, reasons } = await running();
  await resize({ memoryLimitBytes: 128 * mib, cpuLimitMillis: 250 });
  await resize({ memoryLimitBytes: 32 * mib });
  assert.deepEqual(journal(), [
    `resize sandbox {"memoryLimitBytes":${192 * mib},"cpuLimitMillis":750}`,
    `update a/0 {"memoryLimitBytes":${128 * mib},"cpuLimitMillis":250}`,
    `update a/0 {"memoryLimitBytes":${32 * mib}}`,
    `resize sandbox {"memoryLimitBytes":${96 * mib},"cpuLimitMillis":750}`,
  ]);
  assert.deepEqual(pod.pod.spec.containers[0]?.resources.limits, { memory: String(32 * mib), cpu: '250m' });
  assert.deepEqual(reasons().slice(-2), ['Resized', 'Resized']);
  assert.equal(pod.events.at(-1)?.message, 'Limits: memory 32Mi, cpu 250m');
});

test('resize() holds for later starts of the container', async () => {
  const { resize, sandboxes, clock } = await running();
  await resize({ memoryLimitBytes: 80 * mib });
  sandboxes.current('a').exit(1);
  await clock.advance(20_000);
  assert.equal(sandboxes.current('a').spec.attempt, 1);
  assert.equal(sandboxes.current('a').spec.resources.memoryLimitBytes, 80 * mib);
});

test('resize() refuses what cannot be, and changes nothing', async () => {
  const ofPod = 'resources: { limits: { memory: 150Mi } }, ';
  const {
    resize,
    journal,
    running: pod,
  } = await running({ usedBytes: 50 * mib }, ', requests: { memory: 32Mi }', ofPod);
  const refused = async (size: object, kind: string, message: RegExp) =>
    await assert.rejects(resize(size), (error: PodvmError) => error.kind === kind && message.test(error.message));
  await refused({ container: 'c', memoryLimitBytes: 90 * mib }, 'notFound', /it has no container c$/);
  await refused({ memoryLimitBytes: 16 * mib }, 'invalid', /its memory limit must be at least its request of 32Mi/);
  await refused({ memoryLimitBytes: 151 * mib }, 'invalid', /must be at most the pod's own limit of 150Mi/);
  await refused({ memoryLimitBytes: 40 * mib }, 'failedPrecondition', /it uses 52428800 bytes of memory/);
  assert.deepEqual(journal(), []);
  assert.equal(pod.pod.spec.containers[0]?.resources.limits.memory, '64Mi');
});

test('resize() undoes the half of a change that fails', async () => {
  const updateError = () =>
    new PodvmError('unavailable', 'Cannot call updateContainer of the agent: the link went down');
  const { resize, journal, running: pod } = await running({ behaviours: { a: { updateError } } });
  await assert.rejects(resize({ memoryLimitBytes: 128 * mib }), { kind: 'unavailable' });
  assert.deepEqual(journal(), [
    `resize sandbox {"memoryLimitBytes":${192 * mib},"cpuLimitMillis":1000}`,
    `resize sandbox {"memoryLimitBytes":${128 * mib},"cpuLimitMillis":1000}`,
  ]);
  assert.equal(pod.pod.spec.containers[0]?.resources.limits.memory, '64Mi');
});

test('resize() removes the new limits of a pod that had none when a later step fails', async () => {
  const updateError = () => new PodvmError('unavailable', 'the link went down');
  const pod = startFakePod('{ containers: [{ name: a, image: i }] }', { behaviours: { a: { updateError } } });
  await pod.clock.advance(0);
  const wish = { container: 'a', memoryLimitBytes: 128 * mib, cpuLimitMillis: 500 };
  await assert.rejects(pod.running.resize(wish, soon()), { kind: 'unavailable' });
  const resized = pod.sandboxes.journal.filter((line) => line.startsWith('resize sandbox '));
  assert.deepEqual(resized, [
    `resize sandbox {"memoryLimitBytes":${128 * mib},"cpuLimitMillis":500}`,
    'resize sandbox {"memoryLimitBytes":"none","cpuLimitMillis":"none"}',
  ]);
  assert.deepEqual(pod.sandboxes.list()[0]?.resources, { oomScoreAdj: 1000 });
});

test('resize() undoes the half of a change whose caller has left', async () => {
  const stop = new AbortController();
  const said: string[] = [];
  const step = async (what: string, signal: AbortSignal) => {
    said.push(signal === stop.signal ? what : `${what} of nobody`);
    if (what.startsWith('update')) stop.abort();
    signal.throwIfAborted();
    return [];
  };
  const parts = {
    resources: {},
    stats: async () => ({ containers: [] }),
    resize: (change: object, signal: AbortSignal) => step(`resize ${JSON.stringify(change)}`, signal),
    container: () => ({
      ...{ status: { id: 'a', state: 'running' }, resources: {} },
      update: (change: object, signal: AbortSignal) => step(`update ${JSON.stringify(change)}`, signal),
    }),
  };
  const pod = startFakePod('{ containers: [{ name: a, image: i }] }');
  const wish = { container: 'a', memoryLimitBytes: 64 * mib };
  const sandbox = parts as unknown as Parameters<typeof resizeInPlace>[0]; // SAFE: all that it uses
  const resizing = resizeInPlace(sandbox, withSize(pod.running.pod, wish), wish, stop.signal);
  await assert.rejects(resizing, { name: 'AbortError' });
  const limit = `{"memoryLimitBytes":${64 * mib}}`;
  assert.deepEqual(said, [`resize ${limit}`, `update ${limit}`, 'resize {"memoryLimitBytes":"none"} of nobody']);
});

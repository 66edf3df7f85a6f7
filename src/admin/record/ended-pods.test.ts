import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { PodDetails } from '#api/pods.ts';
import { silentLog } from '#host/log/log.ts';
import { parseManifests } from '#pod/manifest/manifest.ts';
import { endedLogs } from '../log/ended-logs.ts';
import { EndedPods, endedSummaryOf } from './ended-pods.ts';
import type { PodSource } from './ended-record.ts';

const textOf = (name: string) =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}}\nspec: {containers: [{name: main, image: i}]}\n`;

function sourceOf(name: string): PodSource {
  const [pod] = parseManifests([{ name: 'f', text: textOf(name) }]).pods;
  assert.ok(pod !== undefined);
  return { pod, configMaps: [], secrets: [], network: 'none' };
}

const detailsOf = (name: string): PodDetails => ({
  namespace: 'default',
  name,
  phase: 'Running',
  ready: '1/1',
  restarts: 0,
  createdAt: '2026-01-01T00:00:00.000Z',
  addresses: ['10.88.0.5'],
  uid: 'u',
  labels: {},
  containers: [{ name: 'main', kind: 'main', image: 'i', state: 'running', ready: true, restartCount: 0 }],
  events: [],
});

async function open(limits = { pods: 10, bytes: 1_000_000 }) {
  const root = await mkdtemp(join(tmpdir(), 'podvm-ended-'));
  const directory = join(root, 'ended');
  const logs = join(root, 'logs');
  await mkdir(logs);
  const again = () => EndedPods.open({ directory, limits, log: silentLog });
  const ended = await again();
  const end = async (name: string, at: number, exitCode = 0, texts: Readonly<Record<string, string>> = {}) => {
    for (const [suffix, text] of Object.entries(texts)) await writeFile(join(logs, `${name}${suffix}`), text);
    const id = await ended.begin(detailsOf(name), sourceOf(name));
    const outcome = { at: new Date(at).toISOString(), exitCode, reason: exitCode === 0 ? 'Completed' : 'Error' };
    const kept = await ended.keep(id, detailsOf(name), outcome, [
      { container: 'main', attempt: 0, path: join(logs, `${name}.log`) },
    ]);
    await kept.list();
    return id;
  };
  return {
    directory,
    logs,
    ended,
    again,
    end,
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  };
}

const names = (ended: EndedPods) => ended.list().map(({ name }) => name);
const record = (line: string) => `2026-01-01T00:00:00.000000000Z stdout F ${line}\n`;

async function logOf(ended: EndedPods, name: string, previous = false): Promise<string> {
  const pod = ended.list().find((it) => it.name === name);
  assert.ok(pod !== undefined);
  const lines = { hasTimes: false, sinceMs: undefined, untilMs: undefined };
  const query = { container: undefined, follow: true, previous, tailLines: undefined, lines };
  const chunks = endedLogs(pod, (log) => ended.logPath(pod, log), query, new AbortController().signal);
  return Buffer.concat(await Array.fromAsync(chunks)).toString();
}

test('EndedPods keeps outcome, logs and manifest of a pod, also for the next process', async () => {
  await using it = await open();
  await it.end('web', 1000, 3, { '.log.1': record('older'), '.log': record('newer') });
  await it.end('ok', 500);
  await rm(it.logs, { recursive: true }); // as when its sandbox is removed
  for (const ended of [it.ended, await it.again()]) {
    assert.equal(await logOf(ended, 'web'), 'older\nnewer\n');
    const web = ended.list().find(({ name }) => name === 'web');
    assert.ok(web !== undefined);
    assert.deepEqual(endedSummaryOf(web), {
      namespace: 'default',
      name: 'web',
      phase: 'Failed',
      ready: '1/1',
      restarts: 0,
      createdAt: '2026-01-01T00:00:00.000Z',
      addresses: [],
      reason: 'Error',
      endedAt: '1970-01-01T00:00:01.000Z',
      exitCode: 3,
      labels: {},
    });
    assert.deepEqual((await ended.sourceOf(web)).pod.spec.containers[0]?.image, 'i');
  }
  assert.deepEqual(names(await it.again()), ['ok', 'web'], 'in the order of their ends');
  assert.equal((await stat(it.directory)).mode & 0o777, 0o700);
});

test('EndedPods lists a pod whose podvm was killed as lost', async () => {
  await using it = await open();
  await it.ended.begin(detailsOf('web'), sourceOf('web'));
  assert.deepEqual(names(it.ended), []);
  const [lost] = (await it.again()).list();
  assert.deepEqual([lost?.name, lost?.outcome.exitCode, lost?.outcome.reason], ['web', 137, 'Lost']);
});

test('EndedPods removes the oldest pods above its limits of pods and bytes', async () => {
  await using few = await open({ pods: 2, bytes: 1_000_000 });
  for (const [at, name] of ['a', 'b', 'c'].entries()) await few.end(name, at);
  assert.deepEqual(names(few.ended), ['b', 'c']);
  assert.equal((await readdir(few.directory)).length, 2);
  await using small = await open({ pods: 10, bytes: 60_000 });
  for (const [at, name] of ['a', 'b', 'c'].entries()) {
    await small.end(name, at, 0, { '.log': record('x'.repeat(25_000)) });
  }
  assert.deepEqual(names(small.ended), ['b', 'c']);
  await using none = await open({ pods: 0, bytes: 60_000 });
  await none.end('a', 0);
  assert.deepEqual(await readdir(none.directory), []);
});

test('EndedPods keeps the newest part of logs that exceed the limit alone', async () => {
  await using it = await open({ pods: 10, bytes: 60_000 });
  await it.end('a', 0, 0, {
    '.log': record('newest'),
    '.log.2': record(`newer ${'x'.repeat(30_000)}`),
    '.log.1': record('y'.repeat(40_000)),
  });
  assert.match(await logOf(it.ended, 'a'), /^newer x*\nnewest\n$/);
});

test('EndedPods removes a pod, and follows its renaming', async () => {
  await using it = await open();
  const id = await it.end('web', 0);
  const [web] = it.ended.list();
  assert.ok(web !== undefined);
  await it.ended.rename(web, 'other');
  const again = await it.again();
  assert.deepEqual([names(it.ended), names(again)], [['other'], ['other']]);
  const [other] = again.list();
  assert.ok(other !== undefined);
  assert.equal((await again.sourceOf(other)).pod.metadata.name, 'other');
  await it.ended.remove(id);
  assert.deepEqual(names(it.ended), []);
  assert.deepEqual(await readdir(it.directory), []);
});

test('EndedPods omits damaged records, and refuses to start from one', async () => {
  await using it = await open();
  const broken = await it.end('broken', 0);
  const sourceless = await it.end('sourceless', 1);
  await writeFile(join(it.directory, broken, 'pod.json'), '{"version": 1, "details": 7}');
  await writeFile(join(it.directory, sourceless, 'source.json'), '{"pod": {}}');
  await writeFile(join(it.directory, 'stray'), '');
  const again = await it.again();
  assert.deepEqual(names(again), ['sourceless']);
  const [pod] = again.list();
  assert.ok(pod !== undefined);
  await assert.rejects(again.sourceOf(pod), { kind: 'corrupt', fix: /podvm rm sourceless/ });
  await assert.rejects(logOf(again, 'sourceless'), { kind: 'failedPrecondition' });
  assert.ok((await readFile(join(it.directory, sourceless, 'pod.json'), 'utf8')).includes('sourceless'));
});

test('EndedPods keeps logins in memory only, and the next process runs such a pod without them', async () => {
  await using it = await open();
  const logins = [{ registry: 'r.example', username: 'shop', password: 's3cr3t' }];
  const id = await it.ended.begin(detailsOf('web'), { ...sourceOf('web'), logins });
  await (await it.ended.keep(id, detailsOf('web'), { at: '', exitCode: 0, reason: 'Completed' }, [])).list();
  assert.doesNotMatch(await readFile(join(it.directory, id, 'source.json'), 'utf8'), /s3cr3t|shop|r\.example/);
  const [pod] = it.ended.list();
  assert.ok(pod !== undefined);
  const again = await it.ended.sourceOf(pod);
  assert.deepEqual([again.logins, again.hasLostLogins], [logins, false]);
  const next = await it.again();
  const renamed = await next.rename(pod, 'other');
  const without = await next.sourceOf(renamed);
  assert.deepEqual([without.logins, without.hasLostLogins, without.secrets], [undefined, true, []]);
});

test('EndedPods keeps Secrets in memory only: the next process cannot run such a pod again', async () => {
  await using it = await open();
  const { secrets } = parseManifests([
    { name: 'f', text: 'apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {key: s3cr3t}\n' },
    { name: 'g', text: textOf('web') },
  ]);
  const id = await it.ended.begin(detailsOf('web'), { ...sourceOf('web'), secrets });
  await (await it.ended.keep(id, detailsOf('web'), { at: '', exitCode: 0, reason: 'Completed' }, [])).list();
  const stored = await readFile(join(it.directory, id, 'source.json'), 'utf8');
  assert.ok(!stored.includes('s3cr3t') && !stored.includes(Buffer.from('s3cr3t').toString('base64').slice(0, 7)));
  const [pod] = it.ended.list();
  assert.ok(pod !== undefined);
  assert.deepEqual((await it.ended.sourceOf(pod)).secrets, secrets);
  const renamed = await it.ended.rename(pod, 'other');
  assert.deepEqual((await it.ended.sourceOf(renamed)).secrets, secrets);
  const next = await it.again();
  await assert.rejects(next.sourceOf(renamed), {
    kind: 'failedPrecondition',
    message: /its Secrets ended with the node/,
  });
  await it.ended.remove(id);
});

test('EndedPods.changeSource() keeps no Secrets that the pod no longer has', async () => {
  await using it = await open();
  const { secrets } = parseManifests([
    { name: 'f', text: 'apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {key: s3cr3t}\n' },
    { name: 'g', text: textOf('web') },
  ]);
  const id = await it.ended.begin(detailsOf('web'), { ...sourceOf('web'), secrets });
  await it.ended.changeSource(id, sourceOf('web'));
  await (await it.ended.keep(id, detailsOf('web'), { at: '', exitCode: 0, reason: 'Completed' }, [])).list();
  const [pod] = it.ended.list();
  assert.ok(pod !== undefined);
  assert.deepEqual((await it.ended.sourceOf(pod)).secrets, []);
});

test('EndedPods.changeSource() records nothing for a pod that was removed meanwhile', async () => {
  await using it = await open();
  const id = await it.ended.begin(detailsOf('a'), sourceOf('a'));
  await it.ended.remove(id);
  await it.ended.changeSource(id, sourceOf('a'));
  assert.deepEqual(await readdir(it.directory), []);
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import { podDetailsSchema, podSummarySchema } from '#api/pods.ts';
import { PodvmError } from '#base/errors.ts';
import { poll } from '#host/wait.ts';
import type { FakeContainer } from '#pod/testing/fake-container.ts';
import type { FakeSettings } from '#pod/testing/fake-sandbox.ts';
import { eventsOf, jobText, openAdmin, sendFile, type Served, talk, yaml } from '../testing/served-admin.ts';

interface Wish {
  readonly kind?: 'Deployment' | 'StatefulSet';
  readonly replicas?: number;
  readonly image?: string;
  readonly word?: string;
  readonly secret?: string;
  readonly strategy?: string;
}

const filesOf = ({
  kind = 'Deployment',
  replicas = 2,
  image = 'i',
  word = 'one',
  secret = 'hidden',
  strategy = '',
}: Wish) => `
{ apiVersion: v1, kind: ConfigMap, metadata: { name: words }, data: { word: ${word} } }
---
{ apiVersion: v1, kind: Secret, metadata: { name: key }, stringData: { key: ${secret} } }
---
apiVersion: apps/v1
kind: ${kind}
metadata: { name: web }
spec:
  replicas: ${replicas}
  ${strategy}
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: ${image}
          envFrom: [{ configMapRef: { name: words } }, { secretRef: { name: key } }]
`;

const pods = async (served: Served, query = '') =>
  v.parse(v.array(podSummarySchema), JSON.parse((await served.call('GET', `/v1/pods${query}`)).body));
const uidOf = async (served: Served, name: string) =>
  v.parse(podDetailsSchema, JSON.parse((await served.call('GET', `/v1/pods/_/${name}`)).body)).uid;

describe('apply', () => {
  test('makes the pods of a Deployment, and changes nothing the second time', async () => {
    await using served = await openAdmin();
    const first = await talk(served, 'apply', filesOf({}));
    assert.deepEqual(first.objects, ['Deployment default/web created']);
    assert.deepEqual(first.last, { event: 'finished', exitCode: 0 });
    assert.deepEqual(
      (await pods(served)).map(({ name, phase }) => [name, phase]),
      [
        ['web-0', 'Running'],
        ['web-1', 'Running'],
      ],
    );
    const uid = await uidOf(served, 'web-0');
    assert.deepEqual((await talk(served, 'apply', filesOf({}))).objects, ['Deployment default/web unchanged']);
    assert.equal(await uidOf(served, 'web-0'), uid);
    assert.equal(served.parts.sandboxes.runs.length, 2);
  });

  test('replaces pods, one after another, for another template', async () => {
    await using served = await openAdmin();
    await talk(served, 'apply', filesOf({}));
    for (const wish of [{ image: 'j' }, { image: 'k' }]) {
      const uids = [await uidOf(served, 'web-0'), await uidOf(served, 'web-1')];
      const from = served.parts.sandboxes.journal.length;
      assert.deepEqual((await talk(served, 'apply', filesOf(wish))).objects, ['Deployment default/web configured']);
      const now = [await uidOf(served, 'web-0'), await uidOf(served, 'web-1')];
      assert.equal(new Set([...uids, ...now]).size, 4);
      const starts = served.parts.sandboxes.journal.slice(from).filter((line) => /^(start|kill|stop) /.test(line));
      assert.equal(
        starts.findLastIndex((line) => line.startsWith('start')),
        starts.length - 1,
        starts.join(', '),
      );
      assert.deepEqual((await talk(served, 'apply', filesOf(wish))).objects, ['Deployment default/web unchanged']);
    }
    assert.deepEqual(await pods(served, '?ended=true'), await pods(served), 'replaced pods leave no records');
  });

  test('with the strategy Recreate ends all pods before it starts others', async () => {
    await using served = await openAdmin();
    const strategy = 'strategy: { type: Recreate }';
    await talk(served, 'apply', filesOf({ strategy }));
    const from = served.parts.sandboxes.journal.length;
    await talk(served, 'apply', filesOf({ strategy, image: 'j' }));
    const lines = served.parts.sandboxes.journal.slice(from);
    const ends = lines.findLastIndex((line) => /^(kill|remove|stop)/.test(line));
    assert.ok(ends >= 0 && ends < lines.findIndex((line) => line.startsWith('start')), lines.join(', '));
    assert.deepEqual((await pods(served)).length, 2);
  });

  test('scales, also to none, and starts a pod again that was stopped', async () => {
    await using served = await openAdmin();
    await talk(served, 'apply', filesOf({}));
    const uid = await uidOf(served, 'web-0');
    assert.deepEqual((await talk(served, 'apply', filesOf({ replicas: 1 }))).objects, [
      'Deployment default/web configured',
    ]);
    assert.deepEqual((await pods(served)).length, 1);
    assert.equal(await uidOf(served, 'web-0'), uid);
    await served.call('POST', '/v1/pods/_/web-0/stop', '{}');
    assert.deepEqual(await pods(served), []);
    await talk(served, 'apply', filesOf({ replicas: 1 }));
    assert.deepEqual((await pods(served)).length, 1);
    await talk(served, 'apply', filesOf({ replicas: 0 }));
    assert.deepEqual(await pods(served, '?ended=true'), []);
  });

  test('goes on in the next process, which knows what it applied but not its Secrets', async () => {
    const first = await openAdmin();
    await talk(first, 'apply', filesOf({ replicas: 1 }));
    const uid = await uidOf(first, 'web-0');
    await using second = await first.next();
    const same = await talk(second, 'apply', filesOf({ replicas: 1, secret: 'unknown' }));
    assert.deepEqual(same.objects, ['Deployment default/web unchanged']);
    assert.equal(await uidOf(second, 'web-0'), uid);
    const changed = await talk(second, 'apply', filesOf({ replicas: 1, image: 'j' }));
    assert.deepEqual(changed.objects, ['Deployment default/web configured']);
  });

  test('ends with the code of a pod that cannot start, and leaves the rest of a roll as it is', async () => {
    await using served = await openAdmin();
    await talk(served, 'apply', filesOf({ kind: 'StatefulSet' }));
    const uid = await uidOf(served, 'web-1');
    const text = filesOf({ kind: 'StatefulSet' }).replace('secretRef: { name: key }', 'secretRef: { name: none }');
    const { events, objects, last } = await talk(served, 'apply', text);
    assert.deepEqual([objects, last], [[], { event: 'finished', exitCode: 125 }]);
    assert.match(JSON.stringify(events), /Cannot find the Secret default\/none/);
    assert.equal(await uidOf(served, 'web-1'), uid);
  });
});

test('a Pod that ends by itself runs once, but one that got no machine is tried again', async () => {
  let error: PodvmError | undefined = new PodvmError('exhausted', 'Cannot make a sandbox: memory is short');
  await using served = await openAdmin({
    behaviours: { main: { onStart: (container) => container.exit(0) } },
    runError: () => error,
  });
  assert.deepEqual((await talk(served, 'apply', yaml)).last, { event: 'finished', exitCode: 125 });
  error = undefined;
  assert.deepEqual((await talk(served, 'apply', yaml)).objects, ['Pod default/web created']);
  await poll(async () => ((await pods(served)).length === 0 ? true : undefined), {
    everyMs: 5,
    signal: AbortSignal.timeout(60_000),
  });
  assert.deepEqual((await talk(served, 'apply', yaml)).objects, ['Pod default/web unchanged']);
});

test('objects whose names are generated are refused, since each command would name them otherwise', async () => {
  await using served = await openAdmin();
  for (const text of [
    yaml.replace('name: web', 'generateName: web-'),
    filesOf({}).replace('name: web }', 'generateName: web- }'),
  ])
    for (const verb of ['apply', 'diff', 'delete'] as const)
      assert.match(JSON.stringify((await talk(served, verb, text)).last), /default\/web-\.\.\.: its name is generated/);
  assert.deepEqual(await pods(served, '?ended=true'), []);
});

test('a Pod that ends by itself replaces another one also if it ends at once', async () => {
  const ends = (container: FakeContainer) => container.spec.image === 'j' && container.exit(0);
  await using served = await openAdmin({ behaviours: { main: { onStart: ends } } });
  assert.deepEqual((await talk(served, 'apply', yaml)).objects, ['Pod default/web created']);
  const { objects, last } = await talk(served, 'apply', yaml.replace('image: i', 'image: j'));
  assert.deepEqual([objects, last], [['Pod default/web configured'], { event: 'finished', exitCode: 0 }]);
});

test('diff shows what apply would change, without Secrets, and apply agrees with it', async () => {
  await using served = await openAdmin();
  const none = await talk(served, 'diff', filesOf({ replicas: 1 }));
  assert.equal(none.last?.['exitCode'], 1);
  assert.equal(none.events[0]?.['before'], '');
  await talk(served, 'apply', filesOf({ replicas: 1 }));
  assert.deepEqual((await talk(served, 'diff', filesOf({ replicas: 1 }))).events, [{ event: 'finished', exitCode: 0 }]);
  const [differs] = (await talk(served, 'diff', filesOf({ replicas: 1, word: 'two', secret: 'other' }))).events;
  assert.equal(differs?.['object'], 'Pod default/web-0');
  assert.match(String(differs?.['before']), /word: one/);
  assert.match(String(differs?.['after']), /word: two/);
  assert.doesNotMatch(JSON.stringify(differs), /hidden|other|b3RoZXI/);
  assert.equal((await talk(served, 'diff', filesOf({ replicas: 0 }))).events[0]?.['after'], '');
});

test('diff agrees with apply about stopped pods, Jobs and volumes', async () => {
  await using served = await openAdmin();
  const text = `${filesOf({ replicas: 1 })}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: data }
spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 10Mi } } }
---
apiVersion: batch/v1
kind: Job
metadata: { name: pi }
spec: { template: { spec: { restartPolicy: Never, containers: [{ name: once, image: i }] } } }
`;
  const differing = async (files = text) =>
    (await talk(served, 'diff', files)).events.flatMap(({ object }) => (object === undefined ? [] : [object]));
  assert.deepEqual(await differing(), ['PersistentVolumeClaim default/data', 'Job default/pi', 'Pod default/web-0']);
  await talk(served, 'apply', text);
  assert.deepEqual(await differing(), []);
  assert.deepEqual(await differing(text.replace('name: once, image: i', 'name: once, image: j')), ['Job default/pi']);
  await served.call('POST', '/v1/pods/_/web-0/stop', '{}');
  assert.deepEqual(await differing(), ['Pod default/web-0']);
});

test('delete ends and removes the pods, keeps volumes, and warns of missing objects', async () => {
  await using served = await openAdmin();
  const claim =
    '---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: { name: data }\n' +
    'spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 10Mi } } }\n';
  const text = `${filesOf({})}${claim}`;
  assert.deepEqual((await talk(served, 'apply', text)).objects, [
    'PersistentVolumeClaim default/data created',
    'Deployment default/web created',
  ]);
  await served.call('POST', '/v1/pods/_/web-0/stop', '{}');
  assert.deepEqual((await talk(served, 'delete', text)).objects, [
    'Deployment default/web deleted',
    'PersistentVolumeClaim default/data kept',
  ]);
  assert.deepEqual(await pods(served, '?ended=true'), []);
  assert.equal((await served.parts.volumes.list()).length, 1);
  assert.match(JSON.stringify((await talk(served, 'delete', text)).events), /Deployment default\/web is not there/);
});

describe('a Job', () => {
  const exits = (code: number): FakeSettings => ({
    behaviours: { main: { onStart: (container) => container.exit(code) } },
  });

  test('gives a run its outcome as exit code', async () => {
    for (const [code, pattern] of [
      [0, /"event":"finished","exitCode":0/],
      [3, /Job default\/pi has failed: BackoffLimitExceeded.*"exitCode":3/],
    ] as const) {
      await using served = await openAdmin(exits(code));
      const { events } = await talk(served, 'run', jobText());
      assert.match(JSON.stringify(events), pattern);
      assert.equal(events.filter(({ event }) => event === 'podFinished').length, code === 0 ? 2 : 1);
    }
  });

  test('ends a run with the first pod that could not be created, as the next could not either', async () => {
    const createError = () => new PodvmError('notFound', 'Cannot pull i: there is no such image');
    await using served = await openAdmin({ behaviours: { main: { createError } } });
    const { events } = await talk(served, 'run', jobText().replace('backoffLimit: 0', 'backoffLimit: 6'));
    assert.match(JSON.stringify(events), /Job default\/pi has failed: Cannot pull i.*"exitCode":125/);
  });

  test('is begun once by apply, cannot change, and can be deleted', async () => {
    await using served = await openAdmin(exits(0));
    assert.deepEqual((await talk(served, 'apply', jobText())).objects, ['Job default/pi created']);
    const ended = await poll(
      async () =>
        (await pods(served, '?ended=true')).filter((pod) => pod.endedAt !== undefined).length === 2 || undefined,
      { everyMs: 5, signal: AbortSignal.timeout(60_000) },
    );
    assert.ok(ended);
    assert.deepEqual((await talk(served, 'apply', jobText())).objects, ['Job default/pi unchanged']);
    assert.match(JSON.stringify((await talk(served, 'apply', jobText(', tty: true'))).last), /a Job cannot change/);
    assert.deepEqual((await talk(served, 'delete', jobText())).objects, ['Job default/pi deleted']);
    assert.deepEqual(await pods(served, '?ended=true'), []);
    assert.deepEqual((await talk(served, 'apply', jobText(', tty: true'))).objects, ['Job default/pi created']);
  });

  test('is begun once also while it waits and its failed pods are removed, and is deleted then', async () => {
    await using served = await openAdmin(exits(1));
    const text = jobText().replace('backoffLimit: 0', 'backoffLimit: 3');
    await talk(served, 'apply', text);
    const failed = async () => (await pods(served, '?ended=true')).filter((pod) => pod.endedAt !== undefined);
    const [pod] =
      (await poll(async () => ((await failed()).length > 0 ? await failed() : undefined), {
        everyMs: 5,
        signal: AbortSignal.timeout(60_000),
      })) ?? [];
    await served.call('DELETE', `/v1/pods/_/${pod?.name}`);
    assert.deepEqual((await talk(served, 'apply', text)).objects, ['Job default/pi unchanged']);
    assert.deepEqual((await talk(served, 'delete', text)).objects, ['Job default/pi deleted']);
    await served.parts.clock.advance(100_000);
    assert.deepEqual(await pods(served, '?ended=true'), []);
  });

  test('counts with all pods that it runs at a time towards the limit of a call', async () => {
    await using served = await openAdmin();
    const many = (name: string) =>
      jobText().replace('name: pi', `name: ${name}`).replace('completions: 2', 'completions: 200\n  parallelism: 200');
    const { last } = await talk(served, 'apply', `${many('one')}---${many('two')}`);
    assert.match(JSON.stringify(last), /at most 256 pods can run at once, got 400/);
    assert.deepEqual(await pods(served), []);
  });

  test('that runs twice is ended twice by a drain', async () => {
    await using served = await openAdmin(exits(1));
    const text = jobText().replace('backoffLimit: 0', 'backoffLimit: 3');
    for (let runs = 1; runs <= 2; runs += 1) {
      const socket = served.talk('/v1/run');
      await once(socket, 'open');
      socket.send(JSON.stringify({ files: [{ name: 'f', text }], network: 'none', detach: true }));
      await Array.fromAsync(eventsOf(socket));
    }
    await served.call('POST', '/v1/drain', '{}');
    await served.parts.clock.advance(400_000);
    assert.equal((await pods(served, '?ended=true')).length, 2);
  });

  test('is left with its node, whose client is told so', async () => {
    const first = await openAdmin();
    const socket = await sendFile(first, 'run', jobText());
    const events: Record<string, unknown>[] = [];
    const told = (async () => {
      for await (const event of eventsOf(socket)) events.push(event);
    })();
    const isRunning = () => events.some(({ detail }) => (detail as { reason?: string })?.reason === 'Started');
    await poll(async () => isRunning() || undefined, { everyMs: 5, signal: AbortSignal.timeout(60_000) });
    await using second = await first.next();
    await told;
    assert.match(JSON.stringify(events.at(-1)), /Cannot follow Job default\/pi any longer: its node ends/);
    assert.equal((await pods(second)).length, 1);
  });
});

test('apply is refused by the podvm of a command, whose pods would end with it', async () => {
  await using served = await openAdmin({}, { mayDetach: false });
  assert.match(
    JSON.stringify((await talk(served, 'apply', filesOf({}))).last),
    /Cannot apply: the podvm that serves is a command/,
  );
  assert.equal((await talk(served, 'diff', filesOf({ replicas: 1 }))).last?.['exitCode'], 1);
});

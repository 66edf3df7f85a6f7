import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import { podDetailsSchema } from '#api/pods.ts';
import { poll } from '#host/wait.ts';
import { openAdmin, type Served, talk } from '../testing/served-admin.ts';

const data = (word: string, secret = 'hidden', more = '') => `
{ apiVersion: v1, kind: ConfigMap, metadata: { name: words }, data: { word: ${word} ${more} } }
---
{ apiVersion: v1, kind: Secret, metadata: { name: key }, stringData: { key: ${secret} } }
---
`;
const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{ name: words, configMap: { name: words } }, { name: key, secret: { secretName: key } }]
      containers:
        - { name: main, image: i, envFrom: [{ configMapRef: { name: words } }], volumeMounts: [{ name: words, mountPath: /w }] }
`;

async function apply(served: Served, text: string) {
  const from = served.parts.sandboxes.journal.length;
  const { events, objects, last } = await talk(served, 'apply', text);
  return {
    objects,
    warnings: events.filter(({ event }) => event === 'warning').map(({ message }) => message),
    updates: served.parts.sandboxes.journal.slice(from).filter((line) => line.startsWith('update ')),
    last,
  };
}
const uidOf = async (served: Served) =>
  v.parse(podDetailsSchema, JSON.parse((await served.call('GET', '/v1/pods/_/web-0')).body)).uid;
const wordOf = (served: Served) =>
  served.parts.sandboxes.current('main').spec.env.find(({ name }) => name === 'word')?.value;

describe('a changed ConfigMap or Secret', () => {
  test('changes the files of running pods and not their variables, which a restart does', async () => {
    await using served = await openAdmin();
    await apply(served, data('one') + deployment);
    const uid = await uidOf(served);
    const second = await apply(served, data('two') + deployment);
    assert.deepEqual(second.objects, ['ConfigMap default/words configured', 'Deployment default/web unchanged']);
    assert.deepEqual(second.updates, ['update words/word: two']);
    assert.deepEqual((await apply(served, data('two') + deployment)).updates, []);
    const third = await apply(served, data('two', 'other') + deployment);
    assert.deepEqual(third.objects, ['Secret default/key configured', 'Deployment default/web unchanged']);
    assert.deepEqual(third.updates, ['update key/key: other']);
    assert.equal(await uidOf(served), uid);
    assert.equal(wordOf(served), 'one');
    assert.equal((await served.call('POST', '/v1/pods/_/web-0/restart')).status, 200);
    assert.equal(wordOf(served), 'two');
  });

  test('needs no file of the pods, and is known to the next node, whose pods get Secrets again', async () => {
    const before = await openAdmin();
    await apply(before, data('one') + deployment);
    const uid = await uidOf(before);
    const alone = await apply(before, data('two'));
    assert.deepEqual(alone.objects, ['ConfigMap default/words configured']);
    assert.deepEqual(alone.last, { event: 'finished', exitCode: 0 });
    await using served = await before.next();
    const same = await apply(served, data('two', 'lost') + deployment);
    assert.deepEqual(same.objects, ['Deployment default/web unchanged']);
    const changed = await apply(served, data('three', 'found') + deployment);
    assert.deepEqual(changed.objects, ['ConfigMap default/words configured', 'Deployment default/web unchanged']);
    assert.deepEqual(changed.updates, ['update words/word: three', 'update key/key: found']);
    assert.equal(await uidOf(served), uid);
    for (const file of await readdir(served.kept, { recursive: true, withFileTypes: true }))
      if (file.isFile())
        assert.doesNotMatch(await readFile(join(file.parentPath, file.name), 'utf8'), /found/, file.name);
  });

  test('that did not reach a pod reaches it with the next apply', async () => {
    await using served = await openAdmin();
    await apply(served, data('one') + deployment);
    const [sandbox] = served.parts.sandboxes.list();
    assert.ok(sandbox);
    const updateVolume = sandbox.updateVolume.bind(sandbox);
    sandbox.updateVolume = () => Promise.reject(new Error('the agent does not answer'));
    assert.match(
      String((await apply(served, data('two'))).warnings),
      /default\/web-0 keeps its files: the agent does not answer\. Apply/,
    );
    sandbox.updateVolume = updateVolume;
    const again = await apply(served, data('two'));
    assert.deepEqual(again.objects, ['ConfigMap default/words configured']);
    assert.deepEqual(again.updates, ['update words/word: two']);
  });

  for (const [how, end] of [
    ['was stopped', async (served: Served) => void (await served.call('POST', '/v1/pods/_/web-0/stop'))],
    ['lost its machine', async (served: Served) => served.parts.sandboxes.list()[0]?.stop(0)],
  ] as const) {
    test(`is that of a pod that ${how} meanwhile, when it is started again`, async () => {
      await using served = await openAdmin();
      await apply(served, data('one') + deployment);
      const [sandbox] = served.parts.sandboxes.list();
      assert.ok(sandbox);
      sandbox.updateVolume = async () => {
        await end(served);
        throw new Error('the agent does not answer');
      };
      assert.deepEqual((await apply(served, data('two', 'other'))).warnings, []);
      const hasEnded = await poll(
        async () => ((await served.call('GET', '/v1/pods/_/web-0')).body.includes('"endedAt"') ? true : undefined),
        { everyMs: 5, signal: AbortSignal.timeout(60_000) },
      );
      assert.ok(hasEnded);
      assert.equal((await served.call('POST', '/v1/pods/_/web-0/start')).status, 200);
      assert.equal(wordOf(served), 'two');
      assert.deepEqual((await apply(served, data('two', 'other'))).objects, []);
    });
  }

  test('takes no optional Secret from a pod whose Secrets have ended with an earlier node', async () => {
    const before = await openAdmin();
    const optional = deployment.replace('secretName: key', 'secretName: key, optional: true');
    await apply(before, data('one') + optional);
    await using served = await before.next();
    const [sandbox] = served.parts.sandboxes.list();
    assert.ok(sandbox);
    const updated: string[] = [];
    const updateVolume = sandbox.updateVolume.bind(sandbox);
    sandbox.updateVolume = async (name, ...rest) => {
      updated.push(name);
      await updateVolume(name, ...rest);
    };
    const [words = ''] = data('two').split('---');
    const alone = await apply(served, words);
    assert.match(String(alone.warnings), /default\/web-0 keeps its files: Cannot use the Secret default\/key/);
    assert.deepEqual(updated, []);
    await apply(served, data('two'));
    assert.deepEqual(updated, ['words', 'key']);
  });

  test('of another namespace changes nothing', async () => {
    await using served = await openAdmin();
    await apply(served, data('one') + deployment);
    const elsewhere = data('two').replaceAll('metadata: {', 'metadata: { namespace: far,');
    assert.deepEqual((await apply(served, elsewhere + deployment.replace('web', 'other'))).updates, []);
  });

  test('that lacks what a pod needs leaves its files as they are, and says so', async () => {
    await using served = await openAdmin();
    const needs = deployment.replace(
      'envFrom: [{',
      'env: [{ name: W, valueFrom: { configMapKeyRef: { name: words, key: word } } }], envFrom: [{',
    );
    await apply(served, data('one') + needs);
    const lacking = await apply(served, data('x').replace('word:', 'other:'));
    assert.deepEqual(lacking.updates, []);
    assert.match(String(lacking.warnings), /default\/web-0 keeps its files: Cannot find the key "word"/);
  });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { objectSummarySchema } from '#api/objects.ts';
import { poll } from '#host/wait.ts';
import { openAdmin, type Served, talk } from '../testing/served-admin.ts';

const files = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: main, image: i }] }
---
apiVersion: batch/v1
kind: CronJob
metadata: { name: dump, labels: { app: dump } }
spec:
  schedule: '*/10 * * * *'
  timeZone: Etc/UTC
  jobTemplate:
    spec: { template: { spec: { restartPolicy: Never, containers: [{ name: main, image: i }] } } }
---
{ apiVersion: v1, kind: Service, metadata: { name: web }, spec: { selector: { app: web }, ports: [{ port: 80 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: peers }, spec: { clusterIP: None, selector: { app: web } } }
---
{ apiVersion: v1, kind: PersistentVolumeClaim, metadata: { name: data }, spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 8Mi } } } }
---
apiVersion: batch/v1
kind: Job
metadata: { name: build }
spec: { template: { spec: { restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{ name: main, image: i }] } } }
`;

async function objects(served: Served) {
  const { body } = await served.call('GET', '/v1/objects');
  return v.parse(v.array(objectSummarySchema), JSON.parse(body));
}

async function statuses(served: Served) {
  return (await objects(served)).map(({ kind, namespace, name, status }) => `${kind} ${namespace}/${name}: ${status}`);
}

test('the objects of applied files are listed with what they do, also by the next node', async () => {
  const before = await openAdmin();
  assert.deepEqual(await objects(before), []);
  await talk(before, 'apply', files, 'cni');
  const expected = [
    /^Deployment default\/web: 2\/2 ready$/,
    /^Job default\/build: 1 running$/,
    /^CronJob default\/dump: \*\/10 \* \* \* \*, next 2026-01-01T00:10Z$/,
    /^Service default\/peers: headless$/,
    /^Service default\/web: 10\.196\.\d+\.\d+ 80\/TCP$/,
    /^PersistentVolumeClaim default\/data: 8 MiB$/,
  ];
  const areListed = async (served: Served) => {
    const isSo = async () => {
      const now = await statuses(served);
      return now.length === expected.length && expected.every((line, at) => line.test(now[at] ?? ''))
        ? true
        : undefined;
    };
    const found = await poll(isSo, { everyMs: 5, signal: AbortSignal.timeout(60_000) });
    assert.ok(found, (await statuses(served)).join('\n'));
  };
  await areListed(before);
  const [web] = await objects(before);
  assert.deepEqual([web?.pods, web?.labels], [['web-0', 'web-1'], { app: 'web' }]);
  await using served = await before.next();
  await areListed(served);
  await served.parts.clock.advance(600_000);
  const runs = async () => ((await statuses(served)).some((line) => line.endsWith(', running')) ? true : undefined);
  assert.ok(await poll(runs, { everyMs: 5, signal: AbortSignal.timeout(60_000) }), (await statuses(served)).join('\n'));
});

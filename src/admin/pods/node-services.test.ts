import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { poll } from '#host/wait.ts';
import { parseManifests } from '#pod/manifest/manifest.ts';
import { createFakeClock } from '#pod/testing/fake-clock.ts';
import { NodeServices } from './node-services.ts';
import { eventsOf, openAdmin, sendFile, type Served, talk as talkOn } from '../testing/served-admin.ts';

const service = (spec: string, name = 'web') =>
  `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { selector: { app: web }, ${spec} } }\n---\n`;
const ports = 'ports: [{ port: 80, targetPort: 8080 }]';
const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: main, image: i }] }
`;

const talk = (served: Served, verb: 'apply' | 'delete' | 'diff', text: string) => talkOn(served, verb, text, 'cni');
const web = 'web.default.svc.cluster.local';
const addressOf = (served: Served) => served.services.names?.find(({ name }) => name === web)?.address;
const untilNone = async (served: Served) =>
  assert.ok(
    await poll(async () => (served.services.names === undefined ? true : undefined), {
      everyMs: 5,
      signal: AbortSignal.timeout(60_000),
    }),
  );
const closed = async (socket: WebSocket) => {
  if (socket.readyState !== socket.CLOSED) await once(socket, 'close');
};
const untilTargets = async (served: Served, count: number) =>
  assert.ok(
    await poll(async () => (served.services.services[0]?.ports[0]?.targets.length === count ? true : undefined), {
      everyMs: 5,
      signal: AbortSignal.timeout(60_000),
    }),
    JSON.stringify(served.services.services),
  );

describe('Services', () => {
  test('are made by apply, lead to their pods while those run, and are removed by delete', async () => {
    await using served = await openAdmin();
    const files = service(ports) + deployment;
    assert.deepEqual((await talk(served, 'diff', files)).last, { event: 'finished', exitCode: 1 });
    const both = (change: string) => [`Service default/web ${change}`, `Deployment default/web ${change}`];
    assert.deepEqual((await talk(served, 'apply', files)).objects, both('created'));
    await untilTargets(served, 1);
    const address = addressOf(served);
    assert.match(address ?? '', /^10\.196\.\d+\.\d+$/);
    assert.deepEqual((await talk(served, 'apply', files)).objects, both('unchanged'));
    assert.deepEqual((await talk(served, 'diff', files)).last, { event: 'finished', exitCode: 0 });
    const changed = await talk(served, 'apply', service(ports.replace('80', '81')) + deployment);
    assert.deepEqual(changed.objects, ['Service default/web configured', 'Deployment default/web unchanged']);
    assert.equal(addressOf(served), address);
    assert.equal(served.services.services[0]?.ports[0]?.port, 81);
    assert.equal((await served.call('POST', '/v1/pods/_/web-0/stop')).status, 200);
    await untilTargets(served, 0);
    assert.deepEqual((await talk(served, 'delete', files)).objects.toSorted(), both('deleted').toSorted());
    assert.equal(served.services.names, undefined, 'nothing is served any more');
  });

  test('are kept for the next node, with their addresses', async () => {
    const before = await openAdmin();
    await talk(before, 'apply', service(ports) + deployment);
    const address = addressOf(before);
    await using served = await before.next();
    assert.equal(addressOf(served), address);
    await untilTargets(served, 1);
    assert.deepEqual((await talk(served, 'apply', service(ports))).objects, ['Service default/web unchanged']);
  });

  test('are found by pods that start again after a boot of the host', async () => {
    const before = await openAdmin();
    await talk(before, 'apply', service(ports) + deployment);
    const nextBoot = { keeping: { bootId: 'the next boot', startsAfterBoot: true } };
    await using served = await before.next(nextBoot, async () => {
      for (const sandbox of before.parts.sandboxes.list()) await sandbox.remove();
    });
    await untilTargets(served, 1);
    assert.deepEqual(served.parts.sandboxes.runs.at(1)?.dns.nameservers, ['10.196.0.10']);
  });

  test('that are deleted leave their name server to the pods that have it, also with the next node', async () => {
    const before = await openAdmin();
    await talk(before, 'apply', service(ports) + deployment);
    await talk(before, 'delete', service(ports));
    assert.deepEqual(before.services.names, []);
    await using served = await before.next();
    assert.deepEqual(served.services.names, []);
    assert.equal((await served.call('POST', '/v1/pods/_/web-0/stop')).status, 200);
    const ended = await poll(async () => (served.services.names === undefined ? true : undefined), {
      everyMs: 5,
      signal: AbortSignal.timeout(60_000),
    });
    assert.ok(ended);
  });

  test('that become names of hosts outside are no longer served', async () => {
    await using served = await openAdmin();
    await talk(served, 'apply', service(ports));
    await talk(served, 'apply', service('type: ExternalName, externalName: example.com'));
    assert.equal(served.services.names, undefined);
  });

  test('that cannot be kept are not there, so that the next apply makes them', async () => {
    await using served = await openAdmin();
    const record = join(dirname(served.kept), 'services.json');
    await mkdir(record);
    assert.equal((await talk(served, 'apply', service(ports))).last?.['event'], 'failed');
    await rmdir(record);
    assert.deepEqual((await talk(served, 'apply', service(ports))).objects, ['Service default/web created']);
    await rm(record);
    await mkdir(record);
    assert.equal((await talk(served, 'delete', service(ports))).last?.['event'], 'failed');
    await rmdir(record);
    assert.deepEqual((await talk(served, 'delete', service(ports))).objects, ['Service default/web deleted']);
  });

  test('that cannot be served are told with what to do', async () => {
    await using served = await openAdmin();
    const fix = 'Install it.';
    served.services.serve = () => Promise.reject(new PodvmError('failedPrecondition', 'Cannot serve', { fix }));
    const { events } = await talk(served, 'apply', service(ports));
    const message = 'Services are not served: Cannot serve. Install it.';
    assert.deepEqual(events[0], { event: 'warning', message });
  });

  test('that cannot be ended do not keep the node from ending', async () => {
    const served = await openAdmin();
    await talk(served, 'apply', service(ports));
    served.services.stop = () => Promise.reject(new Error('stuck'));
    await served[Symbol.asyncDispose](); // looks whether the socket is removed
  });

  test('are looked after no more once the node has ended', async () => {
    const served = await openAdmin();
    await talk(served, 'apply', service(ports) + deployment);
    const serving = Promise.withResolvers<string>();
    served.services.serve = () => serving.promise;
    await served.parts.clock.advance(20_000);
    const ended = served[Symbol.asyncDispose]();
    await served.parts.clock.settle(); // the node waits for the work that is under way
    serving.resolve('10.196.0.10');
    await ended;
    assert.equal(served.parts.clock.pending, 0);
  });

  test('of an unreadable record are made by the next apply', async () => {
    const before = await openAdmin();
    await talk(before, 'apply', service(ports));
    const record = join(dirname(before.kept), 'services.json');
    assert.match(await readFile(record, 'utf8'), /"web"/);
    await using served = await before.next({}, () => writeFile(record, '{'));
    assert.deepEqual((await talk(served, 'apply', service(ports))).objects, ['Service default/web created']);
  });

  test('get addresses of their own, and a headless one or one that selects nothing none', async () => {
    await using served = await openAdmin();
    const many = Array.from({ length: 60 }, (_, at) => service(ports, `s${at}`)).join('');
    await talk(served, 'apply', `${many}${service('clusterIP: None', 'headless')}`);
    assert.equal(new Set(served.services.names?.map(({ address }) => address)).size, 60);
  });

  test('of files that run in the foreground end with the run', async () => {
    await using served = await openAdmin();
    assert.equal(served.services.names, undefined);
    const pod =
      '{ apiVersion: v1, kind: Pod, metadata: { name: p }, spec: { restartPolicy: Never, containers: [{ name: c, image: i }] } }';
    const socket = await sendFile(served, 'run', service(ports) + pod, 'cni');
    for await (const event of eventsOf(socket))
      if ((event['detail'] as { reason?: string })?.reason === 'Started') break;
    assert.ok(addressOf(served));
    socket.close();
    await untilNone(served);
  });

  test('of two runs in the foreground end with the later one, and stay once they were applied', async () => {
    await using served = await openAdmin();
    const started = async (name: string) => {
      const pod = `{ apiVersion: v1, kind: Pod, metadata: { name: ${name} }, spec: { restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{ name: c, image: i }] } }`;
      const socket = await sendFile(served, 'run', service(ports) + pod, 'cni');
      for await (const event of eventsOf(socket))
        if ((event['detail'] as { reason?: string })?.reason === 'Started') break;
      return async () => {
        socket.send(JSON.stringify({ command: 'kill' }));
        for await (const { event } of eventsOf(socket)) if (event === 'finished') break;
        await closed(socket);
      };
    };
    const [endFirst, endSecond] = [await started('one'), await started('two')];
    const address = addressOf(served);
    await endFirst();
    assert.equal(addressOf(served), address);
    assert.ok(address);
    await endSecond();
    await untilNone(served);
    const endThird = await started('three');
    assert.deepEqual((await talk(served, 'apply', service(ports))).objects, ['Service default/web unchanged']);
    await endThird();
    assert.equal(addressOf(served), address);
  });

  test('of a run that begins while the run that made them ends are kept for it, and end with it', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-services-'));
    t.after(async () => await rm(directory, { recursive: true }));
    const network = { serve: async () => '10.196.0.10', stop: async () => {} };
    const path = join(directory, 'services.json');
    await using services = await NodeServices.open({ path, network, clock: createFakeClock(), log: silentLog });
    const [made] = parseManifests([{ name: 'f', text: service(ports) }]).services;
    assert.ok(made);
    const [first, second, third] = [Symbol('first'), Symbol('second'), Symbol('third')];
    await services.apply([made], first);
    const applying = services.apply([made], second);
    await services.endRun(first);
    await applying;
    assert.ok(services.find(made), 'the second run has it');
    const ending = services.endRun(second);
    await services.apply([made], third);
    await ending;
    assert.ok(services.find(made), 'the third run has it');
    await services.endRun(third);
    assert.equal(services.find(made), undefined);
  });
});

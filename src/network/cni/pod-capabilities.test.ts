import assert from 'node:assert/strict';
import { test } from 'node:test';
import { capabilitiesOf, declaredOf, hasWork } from './pod-capabilities.ts';

const owner = { podName: 'p', podNamespace: 'd', podUid: 'u', hostPorts: [] };
const mac = '02:00:00:00:00:01';

test('capabilitiesOf() contains only the MAC for a pod without requests', () => {
  assert.deepEqual(
    capabilitiesOf({ ...owner, annotations: {}, dns: { nameservers: [], searches: [], options: [] } }, mac),
    {
      mac,
    },
  );
});

test('capabilitiesOf() contains host ports, DNS and annotations as in other runtimes', () => {
  const hostPorts = [{ hostPort: 80, containerPort: 8080, protocol: 'SCTP', hostIP: '127.0.0.1' }] as const;
  const dns = { nameservers: ['10.0.0.10'], searches: ['svc'], options: ['ndots:5'] };
  assert.deepEqual(capabilitiesOf({ ...owner, hostPorts, dns, annotations: { a: 'b' } }, mac), {
    mac,
    portMappings: [{ hostPort: 80, containerPort: 8080, protocol: 'sctp', hostIP: '127.0.0.1' }],
    dns: { servers: ['10.0.0.10'], searches: ['svc'], options: ['ndots:5'] },
    'io.kubernetes.cri.pod-annotations': { a: 'b' },
  });
});

test('capabilitiesOf() reads bandwidths in bits per second, with a burst that keeps such a link full', () => {
  const bandwidthOf = (annotations: Record<string, string>) =>
    capabilitiesOf({ ...owner, annotations }, mac)['bandwidth'];
  assert.deepEqual(bandwidthOf({ 'kubernetes.io/ingress-bandwidth': '100M' }), {
    ingressRate: 100_000_000,
    ingressBurst: 25_000_000,
  });
  assert.deepEqual(bandwidthOf({ 'kubernetes.io/egress-bandwidth': '1k' }), { egressRate: 1000, egressBurst: 524_288 });
  assert.deepEqual(bandwidthOf({ 'kubernetes.io/egress-bandwidth': '1P' }), {
    egressRate: 1e15,
    egressBurst: 2 ** 32 - 1,
  });
  for (const text of ['', 'fast', '-1M', '999', '2P', '1e99']) {
    assert.throws(() => bandwidthOf({ 'kubernetes.io/egress-bandwidth': text }), {
      kind: 'invalid',
      message: /kubernetes\.io\/egress-bandwidth/,
    });
  }
});

test('declaredOf() keeps the capabilities that a plugin of the chain declares', () => {
  const plugins = [{ type: 'a', capabilities: { mac: true, dns: false } }, { type: 'b' }];
  assert.deepEqual(declaredOf({ mac, dns: {}, bandwidth: {} }, { cniVersion: '1.0.0', name: 'n', plugins }), { mac });
});

test('hasWork() is false for a plugin whose capability was not requested', () => {
  const portmap = { type: 'portmap', capabilities: { portMappings: true } };
  assert.deepEqual([hasWork(portmap, { mac }), hasWork(portmap, { portMappings: [] })], [false, true]);
  assert.equal(hasWork({ type: 'bridge', capabilities: { mac: true } }, {}), true);
});

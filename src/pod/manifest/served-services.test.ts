import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import { parseManifest } from './manifest.ts';
import { servedOf, type ServingPod } from './served-services.ts';
import { serviceSchema } from '../schema/service.ts';

const service = (name: string, spec: object) =>
  v.parse(serviceSchema, { apiVersion: 'v1', kind: 'Service', metadata: { name }, spec });

function pod(
  name: string,
  ips: readonly string[],
  more = '',
  { isReady = true, isTerminating = false } = {},
): ServingPod {
  const [parsed] = parseManifest(
    `{ apiVersion: v1, kind: Pod, metadata: { name: ${name}, labels: { app: web } }, spec: { ${more} containers: [{ name: c, image: i, ports: [{ name: http, containerPort: 80${name.length} }] }] } }`,
    'f',
  ).pods;
  assert.ok(parsed);
  return {
    pod: parsed,
    status: {
      phase: 'Running',
      isTerminating,
      startTime: '',
      podIPs: ips,
      conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }],
      containers: [],
    },
  };
}

const selector = { app: 'web' };
const pods = [
  pod('a', ['10.0.0.1', 'fd00::1']),
  pod('bb', ['fd00::2', '10.0.0.2'], 'hostname: host, subdomain: web,'),
  pod('starting', ['10.0.0.3'], '', { isReady: false }),
  pod('ending', ['10.0.0.4'], '', { isTerminating: true }),
  pod('no-address', []),
];

test('servedOf() leads the ports of a Service to ready pods, by number and by each name', () => {
  const ports = [
    { port: 80, targetPort: 'http' },
    { port: 53, protocol: 'UDP' },
    { port: 1, targetPort: 'nothing' },
  ];
  const served = servedOf([{ service: service('web', { selector, ports }), address: '10.196.1.1' }], pods);
  assert.deepEqual(served, {
    services: [
      {
        address: '10.196.1.1',
        ports: [
          {
            protocol: 'TCP',
            port: 80,
            targets: [
              { address: '10.0.0.1', port: 801 },
              { address: '10.0.0.2', port: 802 },
            ],
          },
          {
            protocol: 'UDP',
            port: 53,
            targets: [
              { address: '10.0.0.1', port: 53 },
              { address: '10.0.0.2', port: 53 },
            ],
          },
          { protocol: 'TCP', port: 1, targets: [] },
        ],
      },
    ],
    names: [{ name: 'web.default.svc.cluster.local', address: '10.196.1.1' }],
  });
});

test('servedOf() gives a headless Service the addresses of its pods, and those a name with its domain', () => {
  const headless = { selector, clusterIP: 'None' };
  const namesOf = (spec: object) => servedOf([{ service: service('web', spec) }], pods).names;
  const ready = [
    { name: 'web.default.svc.cluster.local', address: '10.0.0.1' },
    { name: 'web.default.svc.cluster.local', address: '10.0.0.2' },
  ];
  const host = { name: 'host.web.default.svc.cluster.local', address: '10.0.0.2' };
  assert.deepEqual(namesOf(headless), [...ready, host]);
  const unready = { name: 'web.default.svc.cluster.local', address: '10.0.0.3' };
  assert.deepEqual(namesOf({ ...headless, publishNotReadyAddresses: true }), [...ready, unready, host]);
});

test('servedOf() selects no pod of another namespace or without one of the labels', () => {
  const far = v.parse(serviceSchema, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'far' },
    spec: { selector, clusterIP: 'None' },
  });
  const strict = service('web', { selector: { ...selector, tier: 'front' }, clusterIP: 'None' });
  assert.deepEqual(servedOf([{ service: far }, { service: strict }], pods).names, []);
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseManifest, parseManifests } from './manifest.ts';

const deployment = (replicas: number, ports = 'ports: [{ name: http, containerPort: 8080 }]') => `apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web, tier: front } }
    spec: { containers: [{ name: side, image: i }, { name: main, image: i, ${ports} }] }
`;
const service = (spec: string, more = '') =>
  `apiVersion: v1\nkind: Service\nmetadata: { name: web${more} }\nspec: { ${spec} }\n`;
const selects = 'selector: { app: web }';

function published(spec: string, { replicas = 1, more = '', ports = undefined as string | undefined } = {}) {
  const { pods, warnings } = parseManifest(`${deployment(replicas, ports)}---\n${service(spec, more)}`, 'f');
  return {
    ports: pods.map((pod) =>
      pod.spec.containers.flatMap(({ name, ports: all }) =>
        all.flatMap((it) =>
          it.hostPort === undefined ? [] : [`${name} ${it.hostPort}:${it.containerPort}/${it.protocol}`],
        ),
      ),
    ),
    warnings: warnings.map(({ line, message }) => `${line} ${message}`),
  };
}

describe('a Service', () => {
  test('of the type NodePort or LoadBalancer is a port of the node, by number or name', () => {
    for (const [spec, port] of [
      ['type: NodePort, ports: [{ port: 80, targetPort: http, nodePort: 30080 }]', 'main 30080:8080/TCP'],
      ['type: NodePort, ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }]', 'main 30080:8080/TCP'],
      ['type: LoadBalancer, ports: [{ port: 8080 }]', 'main 8080:8080/TCP'],
      ['type: LoadBalancer, ports: [{ port: 53, protocol: UDP, targetPort: 5353 }]', 'side 53:5353/UDP'],
    ] as const)
      assert.deepEqual(published(`${selects}, ${spec}`), { ports: [[port]], warnings: [] });
  });

  test('leads to the first of several pods, and says so', () => {
    assert.deepEqual(published(`${selects}, type: LoadBalancer, ports: [{ port: 8080 }]`, { replicas: 3 }), {
      ports: [['main 8080:8080/TCP'], [], []],
      warnings: ['12 Service web: its port of the node leads to pod web-0 alone, of 3 pods'],
    });
  });

  test('says what has no effect here', () => {
    for (const [spec, warning, more] of [
      ['type: NodePort, selector: { app: other }', 'has no port of the node: it selects no pod of these files'],
      ['type: NodePort', 'has no effect: it has no selector'],
      ['type: ExternalName, externalName: a.example', 'has no effect: names outside have no alias here'],
      [`${selects}, type: NodePort`, 'has no port of the node: it selects no pod of these files', ', namespace: other'],
    ] as const)
      assert.deepEqual(published(spec, { more: more ?? '' }), {
        ports: [[]],
        warnings: [`12 Service web: ${warning}`],
      });
    const ports = 'ports: [{ port: 80 }, { port: 81, nodePort: 30081, targetPort: none }]';
    assert.deepEqual(published(`${selects}, type: NodePort, ${ports}`).warnings, [
      '12 Service web: port 80 has no effect: it needs a nodePort',
      '12 Service web: port 81 has no effect: no container has the port none',
    ]);
  });

  test('is served to pods by name, and then needs no warning', () => {
    for (const spec of ['ports: [{ port: 80 }]', 'clusterIP: None, clusterIPs: [None]'])
      assert.deepEqual(published(`${selects}, ${spec}`), { ports: [[]], warnings: [] });
    const text = (name: string) => `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: {} }`;
    assert.equal(parseManifest(text('web'), 'f').services[0]?.metadata.name, 'web');
    assert.throws(() => parseManifest(text('a.b'), 'f'), {
      message: /metadata: the name of a Service must be a DNS label/,
    });
  });

  test('finds pods of another file, and is refused if it would let everyone in', () => {
    const node = service(`${selects}, type: LoadBalancer, ports: [{ port: 8080 }]`);
    const { pods } = parseManifests([
      { name: 'service', text: node },
      { name: 'pods', text: deployment(1) },
    ]);
    assert.equal(pods[0]?.spec.containers[1]?.ports[1]?.hostPort, 8080);
    const limited = service(
      `${selects}, type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8], ports: [{ port: 80 }]`,
    );
    assert.throws(() => parseManifest(limited, 'f'), {
      message: /loadBalancerSourceRanges: is not supported: every address/,
    });
  });
});

import assert from 'node:assert/strict';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { makeBaseLayout } from '#image/source/base-image.ts';
import { sysroot } from '../images/image-tree.ts';
import { password, type Registry, startRegistry, user } from '../images/registry.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode } from './cli-node.ts';

const skip = await whyNoVm();
const repository = join(import.meta.dirname, '../..');
const encode = (text: string) => Buffer.from(text).toString('base64');

/** A pull Secret with these words for the registry. */
const secret = (name: string, registry: string, word: string) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name },
    type: 'kubernetes.io/dockerconfigjson',
    data: {
      '.dockerconfigjson': encode(JSON.stringify({ auths: { [registry]: { auth: encode(`${user}:${word}`) } } })),
    },
  });

/** A gRPC server that reports `db` as healthy the first three times, and then no more. */
const healthServer = `
const { Server, ServerCredentials } = require('@grpc/grpc-js');
const bytes = (it) => it;
const codec = { requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes };
const Check = { path: '/grpc.health.v1.Health/Check', requestStream: false, responseStream: false, ...codec };
let asked = 0;
const server = new Server();
server.addService({ Check }, { Check: (call, answer) => {
  if (call.request.toString() !== '\\n\\x02db') return answer({ code: 5, details: 'asked for another service' });
  asked += 1;
  answer(null, Buffer.from([8, asked <= 3 ? 1 : 2]));
} });
server.bindAsync('[::]:50051', ServerCredentials.createInsecure(), () => console.log('serving'));
`;

describe('podvm run, of files that people have', { skip, timeout: 600_000 }, () => {
  let cli: CliNode;
  let registry: Registry;
  let work: string;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    registry = await startRegistry({ auth: true });
    work = await mkdtemp('/var/tmp/podvm-files-');
    const layout = await makeBaseLayout(await sysroot(), work, AbortSignal.timeout(60_000));
    await registry.push(layout, 'team/base:1');
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    await rm(work, { recursive: true });
  });

  it('pulls with the Secret of the file, and runs what a cluster printed beside what needs one', async () => {
    const made = join(work, 'made/by/podvm');
    const { code, stdout, stderr } = await cli.start(
      ['run', '--network', 'none', '-'],
      `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: mysql }
---
apiVersion: v1
kind: Pod
metadata: { name: db }
spec:
  containers: [{ name: c, image: i }]
  volumes: [{ name: v, nfs: { server: s, path: / } }]
---
${secret('stale', registry.name, 'wrong')}
${secret('good', registry.name, password)}
---
{ apiVersion: v1, kind: ConfigMap, metadata: { name: words }, data: { empty: } }
---
apiVersion: v1
kind: Pod
metadata: { generateName: web-, resourceVersion: "1", uid: 5e352045-c9f5-445b-9aa1-aaaaaaaaaaaa }
spec:
  restartPolicy: Never
  nodeName: worker-1
  enableServiceLinks: true
  imagePullSecrets: [{ name: stale }, { name: good }]
  containers:
    - name: c
      image: ${registry.name}/team/base:1
      command: [sh, -c, 'hostname; cat /words/empty; ls /token; cat /token/namespace; echo; touch /made/by-the-pod']
      volumeMounts: [{ name: made, mountPath: made }, { name: words, mountPath: /words }, { name: token, mountPath: /token }]
  volumes:
    - { name: made, hostPath: { path: ${made} } }
    - { name: words, configMap: { name: words } }
    - name: token
      projected:
        sources:
          - serviceAccountToken: { path: token }
          - configMap: { name: kube-root-ca.crt }
          - downwardAPI: { items: [{ path: namespace, fieldRef: { fieldPath: metadata.namespace } }] }
status: { phase: Running, podIP: 10.0.0.1 }
`,
    ).ended;
    assert.match(stdout, /^web-\w{5}\nnamespace\ndefault\n$/, stderr);
    assert.equal(await realpath(join(made, 'by-the-pod')), join(made, 'by-the-pod'));
    assert.match(stderr, /warning: <stdin>:3: kind: Ingress mysql is skipped/);
    assert.match(stderr, /pod db was not started: <stdin>:11: spec\.volumes\[0\]\.nfs: is not supported/);
    assert.equal(stderr.includes(encode(`${user}:${password}`)), false);
    assert.equal(code, 125, 'a pod of the file could not run');
  });

  it('is refused by the registry without that Secret', async () => {
    const image = `${registry.name}/team/base:1`;
    const text = `
${secret('stale', registry.name, 'wrong')}
---
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  restartPolicy: Never
  imagePullSecrets: [{ name: stale }]
  containers: [{ name: c, image: "${image}", imagePullPolicy: Always, command: ["true"] }]
`;
    const { code, stderr } = await cli.start(['run', '--network', 'none', '-'], text).ended;
    assert.equal(code, 125);
    assert.match(stderr, /the registry does not accept/);
  });

  it('checks the health of a gRPC server for the service of the probe', async () => {
    const node = await realpath(process.execPath);
    const container = JSON.stringify({
      name: 'server',
      image: 'localhost/podvm/base:latest',
      command: ['chroot', '/host', '/usr/bin/env', '-C', repository, node, '-e', healthServer],
      volumeMounts: [{ name: 'host', mountPath: '/host', readOnly: true }],
      startupProbe: {
        grpc: { port: 50_051, service: 'db' },
        periodSeconds: 1,
        timeoutSeconds: 60,
        failureThreshold: 300,
      },
      livenessProbe: {
        grpc: { port: 50_051, service: 'db' },
        periodSeconds: 1,
        timeoutSeconds: 60,
        failureThreshold: 3,
      },
    });
    const text = `
apiVersion: v1
kind: Pod
metadata: { name: grpc }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{ name: host, hostPath: { path: / } }]
  containers: [${container}]
`;
    const { stdout, stderr } = await cli.start(['run', '-'], text).ended;
    assert.equal(stdout, 'serving\n', stderr);
    assert.match(stderr, /Liveness probe failed: gRPC probe: NOT_SERVING/);
    assert.doesNotMatch(stderr, /another service/);
  });
});

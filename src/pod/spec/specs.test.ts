import assert from 'node:assert/strict';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { expand } from './expand.ts';
import { pullPolicyOf } from './image-policy.ts';
import { parseManifest } from '../manifest/manifest.ts';
import type { Resources } from '#sandbox/sandbox.ts';
import type { PodConfig } from '../pods.ts';
import { readLocalProfiles } from './security.ts';
import { containerSpecOf, sandboxSpecOf } from './specs.ts';

const facts = {
  uid: '0a0a0a0a-0000-4000-8000-000000000000',
  nodeName: 'n1',
  hostIP: '10.0.0.1',
  podIPs: ['10.1.0.5', 'fd00::5'],
};

/** Returns the specs of a manifest's first pod, and of its containers by name. */
function specsOf(text: string, config: Partial<PodConfig> = {}) {
  const { pods, configMaps, secrets } = parseManifest(text, 'f');
  const [pod] = pods;
  assert.ok(pod !== undefined);
  const whole: PodConfig = { configMaps, secrets, network: 'cni', nodeName: 'n1', ...config };
  return {
    sandbox: () => sandboxSpecOf(pod, whole, facts),
    container: (name: string) => {
      const found = [...pod.spec.initContainers, ...pod.spec.containers].find((it) => it.name === name);
      assert.ok(found !== undefined);
      return containerSpecOf(pod, found, 0, whole, facts, new Map());
    },
    pod,
  };
}

const pod = (spec: string) =>
  `apiVersion: v1\nkind: Pod\nmetadata: { name: web, namespace: shop, labels: { app: web, tier: "1" }, annotations: { note: "a\\nb" } }\nspec: ${spec}\n`;
const objects = `---
{ apiVersion: v1, kind: ConfigMap, metadata: { name: c, namespace: shop }, data: { A: one, B: two }, binaryData: { bin: /wA= } }
---
{ apiVersion: v1, kind: Secret, metadata: { name: s, namespace: shop }, data: { A: c2VjcmV0 }, stringData: { T: text } }
---
{ apiVersion: v1, kind: ConfigMap, metadata: { name: other }, data: { A: elsewhere } }
`;
const envOf = (container: string) =>
  Object.fromEntries(
    specsOf(pod(`{ containers: [{ name: a, image: i, ${container} }] }`) + objects)
      .container('a')
      .env.map(({ name, value }) => [name, value]),
  );

test('sandboxSpecOf() reads the template from the annotation, and lists the choices for an invalid one', () => {
  const templateOf = (annotations: string) =>
    specsOf(
      `{ apiVersion: v1, kind: Pod, metadata: { name: web, annotations: ${annotations} }, spec: { containers: [{ name: a, image: i }] } }`,
    ).sandbox().template;
  assert.equal(templateOf('{}'), 'on');
  for (const choice of ['on', 'namespace', 'off']) {
    assert.equal(templateOf(`{ podvm.dev/template: "${choice}" }`), choice);
  }
  assert.throws(() => templateOf('{ podvm.dev/template: mine }'), {
    kind: 'invalid',
    message: /podvm.dev\/template must be one of on, namespace, off, got "mine"/,
  });
});

test('containerSpecOf() refuses a reference to a missing object, unless it is optional', () => {
  assert.throws(() => envOf('envFrom: [{ configMapRef: { name: other } }]'), /Cannot find the ConfigMap shop\/other/);
  const missing = (kind: string) => `env: [{ name: X, valueFrom: { ${kind}: { name: c, key: none } } }]`;
  assert.throws(() => envOf(missing('configMapKeyRef')), /Cannot find the key "none" in the ConfigMap shop\/c/);
  assert.throws(() => envOf(missing('secretKeyRef')), /Cannot find the Secret shop\/c/);
  const optional = 'env: [{ name: X, valueFrom: { configMapKeyRef: { name: none, key: k, optional: true } } }]';
  assert.deepEqual(envOf(`${optional}, envFrom: [{ secretRef: { name: none, optional: true } }]`), {});
});

test('containerSpecOf() builds the environment in the order of Kubernetes', () => {
  const env = envOf(`envFrom: [{ prefix: P_, configMapRef: { name: c } }, { secretRef: { name: s } }], env: [
    { name: A, value: "$(T) and $(P_A), not $(LATER) nor $$(T)" }, { name: LATER, value: x },
    { name: IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } },
    { name: IPS, valueFrom: { fieldRef: { fieldPath: status.podIPs } } },
    { name: TIER, valueFrom: { fieldRef: { fieldPath: "metadata.labels['tier']" } } },
    { name: NODE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } },
    { name: MEM, valueFrom: { resourceFieldRef: { resource: limits.memory, divisor: 1Mi } } },
    { name: CPU, valueFrom: { resourceFieldRef: { resource: requests.cpu, divisor: 1m } } } ],
    resources: { limits: { memory: 64Mi, cpu: 250m } }`);
  assert.equal(env['A'], 'text and one, not $(LATER) nor $(T)');
  assert.equal(env['P_B'], 'two');
  assert.equal(env['IP'], '10.1.0.5');
  assert.equal(env['IPS'], '10.1.0.5,fd00::5');
  assert.equal(env['TIER'], '1');
  assert.equal(env['NODE'], 'n1');
  assert.equal(env['MEM'], '64');
  assert.equal(env['CPU'], '250');
});

test('expand() is the identity without a dollar, and never expands inserted values', () => {
  const put = (text: string, value: string) => expand('x', text, (name) => (name === 'X' ? value : undefined));
  fc.assert(
    fc.property(fc.string(), (value) => {
      const plain = value.replaceAll('$', '');
      assert.equal(put(plain, 'y'), plain);
      assert.equal(put('$(X)', value), value);
      assert.equal(put(value.replaceAll('$', '$$$$'), 'y'), value);
    }),
  );
});

test('variables that multiply their length are refused before they take memory, in any field', () => {
  const long = Array.from(
    { length: 12 },
    (_, n) => `{ name: V${n}, value: "${n === 0 ? 'x'.repeat(1000) : `$(V${n - 1})`.repeat(20)}" }`,
  );
  const tooLong = {
    kind: 'invalid',
    message: /the variable V2 of container a.*at most 131072 characters \(E2BIG\)/,
  };
  assert.throws(() => envOf(`env: [${long.join()}]`), tooLong);
  const some = `env: [{ name: V, value: ${'x'.repeat(100_000)} }]`;
  const words = JSON.stringify(Array.from({ length: 100 }, () => '$(V)'));
  const tooMany = { kind: 'invalid', message: /container a: its arguments and variables are too long \(E2BIG\)/ };
  for (const field of ['command', 'args']) assert.throws(() => envOf(`${some}, ${field}: ${words}`), tooMany);
  const from = Array.from({ length: 300 }, (_, n) => `{ prefix: "P${n}_", configMapRef: { name: big } }`);
  const big = `---\n{ apiVersion: v1, kind: ConfigMap, metadata: { name: big, namespace: shop }, data: { A: ${'x'.repeat(10_000)} } }\n`;
  const many = specsOf(pod(`{ containers: [{ name: a, image: i, envFrom: [${from.join()}] }] }`) + big);
  assert.throws(() => many.container('a'), tooMany);
});

test('a value that replaces another counts once', () => {
  const value = 'x'.repeat(100_000);
  const env = Array.from({ length: 40 }, () => `{ name: A, value: ${value} }`);
  assert.equal(envOf(`env: [${env.join()}]`)['A'], value);
});

test('a Secret that is not UTF-8 is refused as a variable with its name and key, and binaryData is skipped', () => {
  const secret = `---\n{ apiVersion: v1, kind: Secret, metadata: { name: redis, namespace: shop }, data: { auth: gP8=, word: w7w= } }\n`;
  const env = (container: string) =>
    specsOf(pod(`{ containers: [{ name: a, image: i, ${container} }] }`) + objects + secret).container('a').env;
  const refused = {
    kind: 'invalid',
    message: /the key "auth" of the Secret shop\/redis as a variable: its value is not UTF-8/,
  };
  const ref = (key: string) => `env: [{ name: P, valueFrom: { secretKeyRef: { name: redis, key: ${key} } } }]`;
  assert.throws(() => env(ref('auth')), refused);
  assert.throws(() => env('envFrom: [{ secretRef: { name: redis } }]'), refused);
  assert.deepEqual(env(ref('word')), [{ name: 'P', value: 'ü' }]);
  assert.deepEqual(
    env('envFrom: [{ configMapRef: { name: c } }]').map(({ name }) => name),
    ['A', 'B'],
  );
  const binary = 'env: [{ name: P, valueFrom: { configMapKeyRef: { name: c, key: bin } } }]';
  assert.throws(() => env(binary), /Cannot find the key "bin" in the ConfigMap shop\/c/);
});

test('an empty path of a container is ignored', () => {
  const { container } = specsOf(
    pod(`{ volumes: [{ name: v, emptyDir: {} }], containers: [{ name: a, image: i, workingDir: "", terminationMessagePath: "",
      command: [], args: [], volumeMounts: [{ name: v, mountPath: /m, subPath: "", subPathExpr: "" }] }] }`),
  );
  const { workingDir, terminationMessagePath, mounts } = container('a');
  assert.deepEqual([workingDir, terminationMessagePath], [undefined, '/dev/termination-log']);
  assert.deepEqual(mounts, [{ source: { kind: 'volume', name: 'v' }, mountPath: '/m', readOnly: false }]);
});

test('a subPathExpr with missing or empty variables is refused with their names', () => {
  const mounts = (expr: string) =>
    specsOf(
      pod(`{ volumes: [{ name: v, emptyDir: {} }], containers: [{ name: a, image: i,
        env: [{ name: EMPTY, value: "" }, { name: UP, value: ../x }, { name: TENANT, value: t }],
        volumeMounts: [{ name: v, mountPath: /m, subPathExpr: "${expr}" }] }] }`),
    ).container('a').mounts[0]?.subPath;
  assert.equal(mounts('a/$(TENANT)'), 'a/t');
  assert.equal(mounts('$$(TENANT)'), '$(TENANT)');
  const refused = (names: string) => ({
    kind: 'invalid',
    message: new RegExp(`/m of container a: no value for ${names},`),
  });
  assert.throws(() => mounts('$(EMPTY)'), refused('EMPTY'));
  assert.throws(() => mounts('x/$(NONE)/$(TENANT)/$(EMPTY)'), refused('EMPTY, NONE'));
  assert.throws(() => mounts('a/$(UP)'), /relative path without "\.\."/);
});

test('containerSpecOf() merges the security of pod and container', () => {
  const { container } = specsOf(
    pod(`{
    securityContext: { runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: [4], runAsNonRoot: true },
    containers: [
      { name: a, image: i, securityContext: { runAsUser: 9, capabilities: { add: [CAP_NET_ADMIN], drop: [ALL] } } },
      { name: b, image: i, securityContext: { privileged: true, seccompProfile: { type: RuntimeDefault } } } ] }`),
  );
  assert.deepEqual(container('a').security, {
    privileged: false,
    runAsUser: 9,
    runAsGroup: 2,
    runAsNonRoot: true,
    supplementalGroups: [4, 3],
    readOnlyRootFilesystem: false,
    allowPrivilegeEscalation: true,
    addCapabilities: ['NET_ADMIN'],
    dropCapabilities: ['ALL'],
    seccomp: { kind: 'runtimeDefault' },
    procMount: 'Default',
  });
  assert.deepEqual(container('b').security.seccomp, { kind: 'unconfined' });
  const strict = '{ securityContext: { supplementalGroupsPolicy: Strict }, containers: [{ name: a, image: i }] }';
  assert.equal(specsOf(pod(strict)).container('a').security.supplementalGroupsPolicy, 'strict');
});

test('sandboxSpecOf() fills volumes with their files, modes and projections', () => {
  const { sandbox, container } = specsOf(
    pod(`{ volumes: [
      { name: c, configMap: { name: c, items: [{ key: A, path: dir/a, mode: 0400 }, { key: bin, path: b }] } },
      { name: m, emptyDir: { medium: Memory, sizeLimit: 1Mi } },
      { name: d, downwardAPI: { items: [{ path: labels, fieldRef: { fieldPath: metadata.labels } }] } },
      { name: p, projected: { sources: [{ configMap: { name: c, items: [{ key: A, path: x }] } }, { secret: { name: s, items: [{ key: A, path: x }] } }] } } ],
      containers: [{ name: a, image: i, volumeMounts: [{ name: c, mountPath: /c }, { name: m, mountPath: /m, subPathExpr: "$(SUB)" }], env: [{ name: SUB, value: sub }] }] }`) +
      objects,
  );
  const [c, m, d, p] = sandbox().volumes;
  assert.deepEqual(c, {
    name: 'c',
    kind: 'push',
    files: [
      { path: 'dir/a', bytes: Buffer.from('one'), mode: 0o400 },
      { path: 'b', bytes: Buffer.of(0xff, 0), mode: 0o644 },
    ],
  });
  assert.deepEqual(m, { name: 'm', kind: 'tmpfs', sizeLimitBytes: 1_048_576 });
  assert.ok(d?.kind === 'push' && Buffer.from(d.files[0]?.bytes ?? []).toString() === 'app="web"\ntier="1"');
  assert.ok(p?.kind === 'push' && p.files.length === 1 && Buffer.from(p.files[0]?.bytes ?? []).toString() === 'secret');
  assert.deepEqual(container('a').mounts, [
    { source: { kind: 'volume', name: 'c' }, mountPath: '/c', readOnly: true },
    { source: { kind: 'volume', name: 'm' }, mountPath: '/m', subPath: 'sub', readOnly: false },
  ]);
});

test('containerSpecOf() mounts a hostPath from the host, and the sandbox has no volume for it', () => {
  const { sandbox, container } = specsOf(
    pod(`{ volumes: [{ name: h, hostPath: { path: /srv } }],
      containers: [{ name: a, image: i, volumeMounts: [
        { name: h, mountPath: /a, subPath: x },
        { name: h, mountPath: /b, readOnly: true, mountPropagation: HostToContainer },
        { name: h, mountPath: /c, readOnly: true, recursiveReadOnly: IfPossible },
        { name: h, mountPath: /d, readOnly: true, recursiveReadOnly: Disabled } ] }] }`),
  );
  assert.deepEqual(sandbox().volumes, []);
  const source = { kind: 'host', path: '/srv', propagation: 'private' };
  assert.deepEqual(container('a').mounts, [
    { source, mountPath: '/a', subPath: 'x', readOnly: false },
    { source: { ...source, propagation: 'hostToContainer' }, mountPath: '/b', readOnly: true },
    { source, mountPath: '/c', readOnly: true, recursiveReadOnly: true },
    { source, mountPath: '/d', readOnly: true, recursiveReadOnly: false },
  ]);
});

test('containerSpecOf() gives a hostPath in volumeDevices to the container as a device', () => {
  const { container } = specsOf(
    pod(`{ volumes: [{ name: disk, hostPath: { path: /dev/vdb, type: BlockDevice } }],
      containers: [
        { name: a, image: i, volumeDevices: [{ name: disk, devicePath: /dev/data }] },
        { name: b, image: i } ] }`),
  );
  assert.deepEqual(container('a').devices, [{ hostPath: '/dev/vdb', devicePath: '/dev/data', readOnly: false }]);
  assert.equal(container('b').devices, undefined);
});

/** Omits limits that depend on the node of the test. */
const limitsOf = ({ resources }: { readonly resources: Resources }) =>
  Object.fromEntries(Object.entries(resources).filter(([name]) => name !== 'oomScoreAdj'));

test('sandboxSpecOf() sums resources as Kubernetes does', () => {
  const limits = (memory: string, cpu: string) => `resources: { limits: { memory: ${memory}, cpu: ${cpu} } }`;
  const { sandbox } = specsOf(
    pod(`{
    initContainers: [
      { name: s, image: i, restartPolicy: Always, ${limits('10Mi', '100m')} },
      { name: i, image: i, ${limits('100Mi', '50m')} } ],
    containers: [{ name: a, image: i, ${limits('20Mi', '200m')} }, { name: b, image: i, ${limits('30Mi', '300m')} }] }`),
  );
  const mebibytes = 1024 * 1024;
  assert.deepEqual(limitsOf(sandbox()), {
    memoryLimitBytes: 110 * mebibytes,
    memoryRequestBytes: 110 * mebibytes,
    cpuLimitMillis: 600,
    cpuRequestMillis: 600,
  });
  const unlimited = specsOf(
    pod(`{ containers: [{ name: a, image: i, ${limits('20Mi', '1')} }, { name: b, image: i }] }`),
  );
  assert.deepEqual(limitsOf(unlimited.sandbox()), { memoryRequestBytes: 20 * mebibytes, cpuRequestMillis: 1000 });
});

test('sandboxSpecOf() maps ports of the host, and detects SCTP at any port of any container', () => {
  const portsOf = (init: string, main: string) => {
    const { hostPorts, sctp } = specsOf(
      pod(
        `{ initContainers: [{ name: i, image: i, ports: [${init}] }], containers: [{ name: a, image: i, ports: [${main}] }] }`,
      ),
    ).sandbox();
    return { hostPorts, sctp };
  };
  assert.deepEqual(portsOf('', '{ containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1 }'), {
    hostPorts: [{ hostPort: 8080, containerPort: 80, protocol: 'TCP', hostIP: '127.0.0.1' }],
    sctp: false,
  });
  assert.deepEqual(portsOf('{ containerPort: 9, protocol: SCTP }', '{ containerPort: 53, protocol: UDP }'), {
    hostPorts: [],
    sctp: true,
  });
  assert.deepEqual(portsOf('', '{ containerPort: 9, hostPort: 9, protocol: SCTP }'), {
    hostPorts: [{ hostPort: 9, containerPort: 9, protocol: 'SCTP' }],
    sctp: true,
  });
});

test('sandboxSpecOf() derives the hostname, and the full name of a pod with a subdomain', () => {
  const hostname = (spec: string) => specsOf(pod(spec)).sandbox().hostname;
  const names = (spec: string) => specsOf(pod(spec)).sandbox().names;
  const containers = 'containers: [{ name: a, image: i }]';
  assert.equal(hostname(`{ ${containers} }`), 'web');
  assert.equal(hostname(`{ hostname: h, subdomain: s, ${containers} }`), 'h');
  assert.equal(
    hostname(`{ hostname: h, subdomain: s, setHostnameAsFQDN: true, ${containers} }`),
    'h.s.shop.svc.cluster.local',
  );
  assert.equal(names(`{ hostname: h, ${containers} }`), undefined);
  for (const more of ['', 'setHostnameAsFQDN: true, '])
    assert.deepEqual(names(`{ subdomain: s, ${more}${containers} }`), ['web.s.shop.svc.cluster.local', 'web']);
  const long = `{ hostname: ${'h'.repeat(60)}, subdomain: s, setHostnameAsFQDN: true, ${containers} }`;
  assert.throws(() => hostname(long), /at most 64 characters/);
});

test('pullPolicyOf() pulls images that may have changed, and never those without a registry', () => {
  assert.equal(pullPolicyOf('nginx', undefined), 'Always');
  assert.equal(pullPolicyOf('localhost:5000/nginx', undefined), 'Always');
  assert.equal(pullPolicyOf('r.example:5000/nginx:latest', undefined), 'Always');
  assert.equal(pullPolicyOf('nginx:1.27', undefined), 'IfNotPresent');
  assert.equal(pullPolicyOf(`nginx@sha256:${'0'.repeat(64)}`, undefined), 'IfNotPresent');
  assert.equal(pullPolicyOf('localhost/podvm/base:latest', undefined), 'Never');
  assert.equal(pullPolicyOf('nginx:1.27', 'Always'), 'Always');
});

test('readLocalProfiles() reads profiles from their directory only', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'profiles-'));
  t.after(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, 'good.json'), '{"defaultAction":"SCMP_ACT_ALLOW"}');
  await writeFile(join(directory, 'bad.json'), 'x');
  await symlink('/etc/passwd', join(directory, 'link.json'));
  const specOf = (name: string) =>
    specsOf(
      pod(
        `{ securityContext: { seccompProfile: { type: Localhost, localhostProfile: ${name} } }, containers: [{ name: a, image: i }] }`,
      ),
    ).pod.spec;
  await assert.rejects(readLocalProfiles(specOf('good.json'), undefined), /no directory of profiles/);
  await assert.rejects(readLocalProfiles(specOf('none.json'), directory), /Cannot read the seccomp profile none\.json/);
  await assert.rejects(readLocalProfiles(specOf('link.json'), directory), /Cannot read/);
  await assert.rejects(readLocalProfiles(specOf('bad.json'), directory), /Cannot use/);
  const profiles = await readLocalProfiles(specOf('good.json'), directory);
  assert.deepEqual(profiles.get('good.json'), { defaultAction: 'SCMP_ACT_ALLOW' });
});

test('sandboxSpecOf() maps users for a pod with hostUsers: false', () => {
  const usersOf = (hostUsers: string) =>
    specsOf(pod(`{ ${hostUsers} containers: [{ name: a, image: i }] }`)).sandbox().userNamespace;
  const ids = [{ containerId: 0, hostId: 65_536, size: 65_536 }];
  assert.deepEqual(usersOf('hostUsers: false,'), { uids: ids, gids: ids });
  for (const none of ['hostUsers: true,', '']) assert.equal(usersOf(none), undefined);
});

test('containerSpecOf() mounts image volumes, each by its own pull policy, and makes no volumes for them', () => {
  const specs = specsOf(
    pod(`{ containers: [{ name: a, image: i, volumeMounts: [
      { name: m, mountPath: /m, subPath: weights }, { name: l, mountPath: /l }, { name: o, mountPath: /o } ] }],
      volumes: [ { name: m, image: { reference: "reg/models:1" } }, { name: l, image: { reference: reg/last } },
        { name: o, image: { reference: reg/never, pullPolicy: Never } } ] }`),
  );
  assert.deepEqual(specs.sandbox().volumes, []);
  const image = (name: string, pullPolicy: string) => ({ kind: 'image', image: name, pullPolicy });
  assert.deepEqual(specs.container('a').mounts, [
    { source: image('reg/models:1', 'IfNotPresent'), mountPath: '/m', subPath: 'weights', readOnly: true },
    { source: image('reg/last', 'Always'), mountPath: '/l', readOnly: true },
    { source: image('reg/never', 'Never'), mountPath: '/o', readOnly: true },
  ]);
});

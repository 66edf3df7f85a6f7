import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseManifest, parseManifests, problemText } from './manifest.ts';
import { pullLogins } from '../spec/pull-secrets.ts';
import { splitYaml } from './yaml-chunks.ts';

/** A manifest as users write it, and as kubectl and clusters print it. */
const pod = (name: string, spec = '') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}}\nspec: {containers: [{name: c, image: i}]${spec}}\n`;
const namesOf = (text: string) => parseManifest(text, 'f').pods.map((it) => it.metadata.name);
const warningsOf = (text: string) => parseManifest(text, 'f').warnings.map(problemText);

test('parseManifest() reads a key without a value as "" in maps and lists of text, and omits it from objects', () => {
  const { pods, configMaps, secrets, warnings } = parseManifest(
    `
apiVersion: v1
kind: Pod
metadata: { name: p, labels: { a:, b: ~ }, annotations: { note: null } }
spec:
  securityContext:
  restartPolicy:
  whatever:
  containers:
    - { name: c, image: i, command: [sh, ~], livenessProbe:, env: [{ name: E, value: }] }
---
{ apiVersion: v1, kind: ConfigMap, metadata: { name: c }, data: { empty:, full: x }, binaryData: { none: } }
---
{ apiVersion: v1, kind: Secret, metadata: { name: s }, data: { empty: }, stringData: { text: } }
`,
    'f',
  );
  assert.deepEqual(pods[0]?.metadata.labels, { a: '', b: '' });
  assert.deepEqual(pods[0]?.metadata.annotations, { note: '' });
  assert.equal(pods[0]?.spec.restartPolicy, 'Always');
  assert.deepEqual(pods[0]?.spec.containers[0]?.command, ['sh', '']);
  assert.equal(pods[0]?.spec.containers[0]?.livenessProbe, undefined);
  assert.deepEqual(configMaps[0]?.data, { empty: '', full: 'x' });
  assert.deepEqual(configMaps[0]?.binaryData, { none: '' });
  assert.deepEqual(secrets[0]?.data, { empty: '' });
  assert.deepEqual(secrets[0]?.stringData, { text: '' });
  assert.deepEqual(warnings.map(problemText), ['f:8: spec.whatever: is an unknown field and is ignored']);
});

test('parseManifest() resolves aliases and merges', () => {
  const uses = Array.from({ length: 5000 }, (_, index) => `{ name: V${index}, value: *v }`).join(', ');
  const [many] = parseManifest(
    `apiVersion: v1\nkind: Pod\nmetadata: { name: p, annotations: { team: &v payments } }\nspec:\n  containers: [{ name: c, image: i, env: [${uses}] }]`,
    'f',
  ).pods;
  assert.equal(many?.spec.containers[0]?.env[4999]?.value, 'payments');
  const merged = parseManifest(
    `
apiVersion: v1
kind: ConfigMap
metadata: { name: c }
data: { <<: [&a { one: "1", two: "2" }, { two: no, three: "3" }], one: own }
`,
    'f',
  );
  assert.deepEqual(merged.configMaps[0]?.data, { one: 'own', two: '2', three: '3' });
});

test('parseManifest() refuses oversized, undefined and recursive aliases, with their line', () => {
  const refused = (text: string, words: RegExp) =>
    assert.throws(() => parseManifest(text, 'f'), { kind: 'invalid', message: words });
  const wide = `a: &a ${'x'.repeat(100_000)}\nb:\n${'  - *a\n'.repeat(50)}`;
  refused(wide, /f:44:5: with the alias \*a its aliases stand for more than 4194304 characters/);
  refused(`a: &a [${'x, '.repeat(999)}x]\nb:\n${'  - *a\n'.repeat(60)}`, /f:52:5: .*more than 50000 values/);
  const deep = Array.from({ length: 40 }, (_, index) => `a${index + 1}: &a${index + 1} [[*a${index}]]`);
  refused(`a0: &a0 x\n${deep.join('\n')}`, /f:33:13: with the alias \*a31 it is nested deeper than 64 levels/);
  refused(`a: &a x\nb: [${'*a,'.repeat(100_000)}]`, /f:2: the alias \*a exceeds the limit of 25000/);
  refused('a: &a [*a]', /f:1:8: the alias \*a has no anchor that ends before it/);
  refused('a: *b', /f:1:4: the alias \*b has no anchor/);
  refused('a: 1\nb: {<<: 2}', /f:2:5: a merge/);
});

test('parseManifest() reads markers, streams of JSON and lists as kubectl does', () => {
  assert.deepEqual(namesOf(`${pod('a')}---\n\ufeff${pod('b')}`), ['a', 'b']);
  assert.deepEqual(namesOf(`\ufeff---\n${pod('a')}\ufeff--- # next\r\n${pod('b')}...\n---\n---\n`), ['a', 'b']);
  assert.deepEqual(namesOf(pod('a').replaceAll('\n', '\r\n')), ['a']);
  const json = (name: string) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { containers: [{ name: 'c', image: 'i', args: ['}{"\\'] }] },
  });
  const [a, b, c] = ['a', 'b', 'c'].map((name) => JSON.stringify(json(name)));
  assert.deepEqual(namesOf(`${a}\n${b} ${c}\n`), ['a', 'b', 'c']);
  assert.deepEqual(namesOf(`${JSON.stringify(json('a'), null, '\t')}\n---\n${b}${c}`), ['a', 'b', 'c']);
  const { apiVersion: _apiVersion, kind: _kind, ...item } = json('listed');
  assert.deepEqual(namesOf(JSON.stringify({ kind: 'PodList', apiVersion: 'v1', metadata: {}, items: [item] })), [
    'listed',
  ]);
  assert.deepEqual(
    namesOf(JSON.stringify({ kind: 'List', apiVersion: 'v1', items: [json('a'), { kind: 'PodList', items: [item] }] })),
    ['a', 'listed'],
  );
  assert.deepEqual(namesOf('apiVersion: v1\nkind: PodList\nitems:\n'), []);
  assert.throws(() => namesOf('kind: List\nitems: 7'), { message: /f:1: items: must be a list, got the number 7/ });
});

test('parseManifest() counts lines over all documents and objects of a stream', () => {
  const wrong = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},\n"spec":{}}\n';
  const text = `${wrong}${wrong}---\n\ufeff# x\n${wrong}`;
  for (const line of [2, 4, 8]) {
    assert.throws(() => parseManifest(text, 'f'), {
      message: new RegExp(`\\nf:${line}: spec.containers: is required`),
    });
  }
  assert.throws(() => parseManifest('a: 1\n---\nb: [\n---\n', 'f'), { message: /\nf:4:1: / });
});

test('splitYaml() drops only markers, tabs of JSON and empty documents', () => {
  const line = fc.constantFrom(
    '---',
    '--- # x',
    '...',
    'a: 1',
    ' b',
    '{"a": 1}',
    '{"b": "}"} {"c":\t2}',
    '',
    '# x',
    '\ufeffx: 1',
    '%YAML 1.2',
    '- |',
    '  ---',
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 30 }), (lines) => {
      const text = lines.join('\n');
      const words = (some: string) => some.replaceAll(/(?<![^\n])---(?![^\n\s])|#[^\n]*|[\s\ufeff]/g, '');
      const chunks = [...splitYaml(text)];
      assert.equal(words(chunks.map((it) => it.text).join('\n')), words(text));
      for (const chunk of chunks) {
        const own = chunk.text.split('\n').findIndex((it) => it.trim() !== '');
        const there = lines[chunk.line - 1 + own] ?? '';
        const begins = (chunk.text.split('\n')[own] ?? '').replaceAll('\t', ' ').trim();
        assert.ok(
          there.replaceAll('\t', ' ').replace('\ufeff', '').includes(begins),
          `${begins} is not in line ${chunk.line}: ${there}`,
        );
      }
    }),
    { numRuns: 500 },
  );
});

test('parseManifest() refuses control characters and files that are too dense, with the line', () => {
  assert.throws(() => parseManifest('a: 1\nb: \u0000', 'f'), { message: /f:2: it has the control character U\+0000/ });
  assert.throws(() => parseManifest('- a\n'.repeat(1_000_000), 'f'), {
    message: /f:\d+: it has more than 500000 tokens/,
  });
  assert.throws(() => parseManifest('['.repeat(4_000_000), 'f'), {
    message: /f:1: it is nested deeper than 64 levels/,
  });
  assert.throws(() => parseManifest('- '.repeat(20_000), 'f'), { message: /f:1: it is nested deeper than 64 levels/ });
  const keys = Array.from({ length: 60_000 }, (_, index) => `k${index}: 1`).join('\n');
  assert.throws(() => parseManifest(keys, 'f'), { message: /must be Pod/ }); // and not after minutes
});

test('parseManifest() skips and names objects that it does not run, and runs the rest', () => {
  const text = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: data}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: dump}
---
${pod('loader')}---
apiVersion: example.com/v1
kind: Pod
metadata: {name: theirs}
---
apiVersion: example.com/v1
kind: Whatever
metadata: {generateName: w-}
---
apiVersion: v1
kind: EndpointsList
items: []
---
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
`;
  assert.deepEqual(namesOf(text), ['loader']);
  assert.deepEqual(warningsOf(text), [
    'f:3: kind: PersistentVolume data is skipped: it needs storage that a cluster provides; use a PersistentVolumeClaim',
    'f:7: kind: PodDisruptionBudget dump is skipped: it needs a controller of a cluster',
    'f:16: kind: Pod theirs is skipped: podvm does not know example.com/v1',
    'f:20: kind: Whatever w- is skipped: podvm does not know this kind',
    'f:24: kind: EndpointsList is skipped: podvm does not know this kind',
    'f:28: kind: Kustomization is skipped: it only names other files; pass what `kubectl kustomize DIR` prints',
  ]);
});

test('parseManifest() refuses only pods with unsupported features; alone, it refuses the file', () => {
  const needs = [
    ', volumes: [{name: v, csi: {driver: d}}]',
    ', hostNetwork: true',
    ', os: {name: windows}',
    ', volumes: [{name: v, hostPath: {path: /x, type: Socket}}]',
    ', securityContext: {sysctls: [{name: kernel.panic, value: "1"}]}',
    ', volumes: [{name: v, emptyDir: {medium: HugePages-2Mi}}]',
    ', volumes: [{name: v, projected: {sources: [{}]}}], hostPID: true',
  ];
  for (const need of needs.slice(0, -1)) {
    const both = `${pod('bad', need)}---\n${pod('good')}`;
    const { pods, refused } = parseManifest(both, 'f');
    assert.deepEqual(
      pods.map((it) => it.metadata.name),
      ['good'],
      need,
    );
    assert.deepEqual(
      refused.map((it) => [it.namespace, it.name, it.problems.length]),
      [['default', 'bad', 1]],
      need,
    );
    assert.throws(
      () => parseManifest(pod('bad', need), 'f'),
      { message: /^Cannot use f: it has a problem\nf:4: spec/ },
      need,
    );
    const files = [
      { name: 'f', text: pod('bad', need) },
      { name: 'g', text: pod('good') },
    ];
    assert.equal(parseManifests(files).pods.length, 1);
  }
  // Mistakes and unsupported features are reported together before anything runs.
  const mistaken = `${pod('bad', needs.at(-1))}---\n${pod('good')}`;
  assert.throws(() => parseManifest(mistaken, 'f'), { message: /2 problems[^]*exactly one source[^]*hostPID/ });
});

test('parseManifest() reports each fault once', () => {
  const once = (spec: string) => {
    try {
      parseManifest(`apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: ${spec}`, 'f');
    } catch (error) {
      return assert.match(String(error), /it has a problem\n[^\n]+$/, spec);
    }
    return assert.fail(spec);
  };
  once('{containers: [{name: c, image: i, env: [{name: A, valueFrom: {fileKeyRef: {key: a}}}]}]}');
  once('{containers: [{name: c, image: i, lifecycle: {preStop: {tcpSocket: {port: 1}}}}]}');
  once('{volumes: [{name: v, csi: {driver: x}}], containers: [{name: c, image: i}]}');
  once('{volumes: [{name: v, projected: {sources: [{configMap: {name: UPPER}}]}}], containers: [{name: c, image: i}]}');
});

test('parseManifest() runs a pod as `kubectl get -o yaml` prints it', () => {
  const text = `
apiVersion: v1
kind: Pod
metadata:
  annotations: { kubernetes.io/config.seen: "2026-01-01T00:00:00Z" }
  creationTimestamp: "2026-01-01T00:00:00Z"
  generateName: web-
  generation: 1
  labels: { pod-template-hash: 6bb47759fc }
  managedFields: [{ apiVersion: v1, fieldsType: FieldsV1, fieldsV1: { "f:metadata": { "f:labels": { .: {} } } }, manager: k, operation: Update }]
  name: web-6bb47759fc-l8jwf
  namespace: shop
  ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: 5e352045-c9f5-445b-9aa1-aaaaaaaaaaaa, controller: true }]
  resourceVersion: "1"
  uid: 5e352045-c9f5-445b-9aa1-aaaaaaaaaaaa
spec:
  containers:
    - name: c
      image: i
      imagePullPolicy: IfNotPresent
      resources: {}
      terminationMessagePath: /dev/termination-log
      terminationMessagePolicy: File
      volumeMounts: [{ mountPath: /var/run/secrets/kubernetes.io/serviceaccount, name: kube-api-access-x7k2p, readOnly: true }]
  dnsPolicy: ClusterFirst
  enableServiceLinks: true
  ephemeralContainers: [{ name: debugger, image: i, targetContainerName: c }]
  nodeName: worker-1
  preemptionPolicy: PreemptLowerPriority
  priority: 0
  restartPolicy: Always
  schedulerName: default-scheduler
  securityContext: {}
  serviceAccount: default
  serviceAccountName: default
  terminationGracePeriodSeconds: 30
  tolerations: [{ effect: NoExecute, key: node.kubernetes.io/not-ready, operator: Exists, tolerationSeconds: 300 }]
  volumes:
    - name: kube-api-access-x7k2p
      projected:
        defaultMode: 420
        sources:
          - serviceAccountToken: { expirationSeconds: 3607, path: token }
          - configMap: { items: [{ key: ca.crt, path: ca.crt }], name: kube-root-ca.crt }
          - downwardAPI: { items: [{ fieldRef: { apiVersion: v1, fieldPath: metadata.namespace }, path: namespace }] }
status:
  hostIP: 192.0.2.1
  podIP: 10.0.0.1
  containerStatuses: [{ imageID: "docker.io/i@sha256:0" }]
`;
  assert.deepEqual(namesOf(text), ['web-6bb47759fc-l8jwf']);
  assert.deepEqual(warningsOf(text), [
    'f:27: spec.ephemeralContainers: is skipped; use `podvm exec`',
    'f:43: spec.volumes[0].projected.sources[0].serviceAccountToken: is skipped: it needs an API server, and podvm has none',
    'f:44: spec.volumes[0].projected.sources[1].configMap: is skipped: a cluster would provide the ConfigMap kube-root-ca.crt',
  ]);
  const given = `${text}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-root-ca.crt, namespace: shop}\n`;
  assert.equal(warningsOf(given).length, 2);
  // A kubelet's own /pods gives static pods a hash as uid.
  assert.deepEqual(namesOf(pod('static').replace('static', 'static, uid: 5a8f1ad1bd55bd1ae1ba4cf2c0b4e3c4')), [
    'static',
  ]);
});

test('parseManifest() makes a different name from generateName each time', () => {
  const text = pod('x').replace('name: x', 'generateName: job-');
  const names = namesOf(`${text}---\n${text}`);
  assert.equal(new Set(names).size, 2);
  for (const name of names) assert.match(name, /^job-[bcdfghjklmnpqrstvwxz2456789]{5}$/);
  const [long] = namesOf(pod('x').replace('name: x', `generateName: ${'a'.repeat(100)}`));
  assert.equal(long?.length, 63);
  assert.throws(() => namesOf(pod('x').replace('name: x', 'labels: {}')), { message: /metadata.name: is required/ });
  assert.throws(() => namesOf(pod('x').replace('name: x', 'generateName: UP-')), {
    message: /generateName: must begin a DNS sub/,
  });
});

test('parseManifest() resolves a relative mountPath below /, as a kubelet does', () => {
  const mounts = (list: string) =>
    parseManifest(
      `apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {volumes: [{name: v}, {name: w}], containers: [{name: c, image: i, volumeMounts: [${list}]}]}`,
      'f',
    ).pods[0]?.spec.containers[0]?.volumeMounts.map((it) => it.mountPath);
  assert.deepEqual(mounts('{name: v, mountPath: data}, {name: w, mountPath: /other}'), ['/data', '/other']);
  assert.throws(() => mounts('{name: v, mountPath: data}, {name: w, mountPath: /data}'), {
    message: /is given twice: "\/data"/,
  });
  assert.throws(() => mounts('{name: v, mountPath: a/../b}'), { message: /without "\.\."/ });
  assert.throws(() => mounts('{name: v, mountPath: ""}'), { message: /mountPath: must not be empty/ });
});

test('pullLogins() tries the logins of the user after the Secrets', () => {
  const auth = Buffer.from('a:b').toString('base64');
  const data = Buffer.from(JSON.stringify({ auths: { 'r.example': { auth } } })).toString('base64');
  const secret = `---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, type: kubernetes.io/dockerconfigjson, data: {.dockerconfigjson: ${data}}}\n`;
  const { pods, ...given } = parseManifest(pod('p', ', imagePullSecrets: [{name: s}]') + secret, 'f');
  const [first = assert.fail('no pod')] = pods;
  const logins = [{ registry: 'r.example', username: 'u', password: 'p' }];
  const found = pullLogins(first, { ...given, network: 'none', nodeName: 'n', logins });
  assert.deepEqual(
    found.map(({ username }) => username),
    ['a', 'u'],
  );
});

test('pullLogins() reads the Secrets of imagePullSecrets in both forms, and warns of invalid ones', () => {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64');
  const auth = Buffer.from('shop:secret:with:colons').toString('base64');
  const secret = (name: string, type: string, data: string) =>
    `---\n{apiVersion: v1, kind: Secret, metadata: {name: ${name}}, type: ${type}, data: {${data}}}\n`;
  const text =
    pod('p', ', imagePullSecrets: [{name: new}, {name: old}, {name: opaque}, {name: missing}]') +
    secret(
      'new',
      'kubernetes.io/dockerconfigjson',
      `.dockerconfigjson: ${encode({ auths: { 'r.example': { auth }, 't.example': { identitytoken: 't' } } })}`,
    ) +
    secret(
      'old',
      'kubernetes.io/dockercfg',
      `.dockercfg: ${encode({ 'https://old.example/v1/': { username: 'u', password: 'p', email: 'e' } })}`,
    ) +
    secret('opaque', 'Opaque', 'a: eA==');
  const { pods, ...given } = parseManifest(text, 'f');
  assert.ok(pods[0] !== undefined);
  assert.deepEqual(pullLogins(pods[0], { ...given, network: 'none', nodeName: 'n' }), [
    { registry: 'r.example', username: 'shop', password: 'secret:with:colons' },
    { registry: 't.example', identityToken: 't' },
    { registry: 'https://old.example/v1/', username: 'u', password: 'p' },
  ]);
  assert.deepEqual(given.warnings.map(problemText), [
    'f:4: spec.imagePullSecrets[2]: has no effect: the Secret opaque must have the type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg',
    'f:4: spec.imagePullSecrets[3]: has no effect: there is no Secret default/missing in the files',
  ]);
  const broken = secret(
    'bad',
    'kubernetes.io/dockerconfigjson',
    `.dockerconfigjson: ${Buffer.from('{"auths": hunter2').toString('base64')}`,
  );
  assert.throws(
    () => parseManifest(broken, 'f'),
    (error) => /data: must have \.dockerconfigjson/.test(String(error)) && !String(error).includes('hunter2'),
  );
});

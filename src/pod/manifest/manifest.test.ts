import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PodvmError } from '#base/errors.ts';
import { parseManifest, parseManifests } from './manifest.ts';

const head = 'apiVersion: v1\nkind: Pod\nmetadata: { name: web }\n';
const container = '{ name: a, image: i }';

function problemsOf(text: string): string {
  try {
    parseManifest(text, 'web.yaml');
  } catch (error) {
    assert.ok(error instanceof PodvmError, String(error));
    assert.equal(error.kind, 'invalid');
    return error.message;
  }
  return assert.fail(`accepted: ${text}`);
}

const specProblem = (spec: string) => problemsOf(`${head}spec:\n  ${spec.replaceAll('\n', '\n  ')}`);

test('parseManifest() names file, line and field of every problem', () => {
  const message = problemsOf(`${head}spec:
  restartPolicy: Sometimes
  containers:
    - name: Web
      image: nginx
      ports: [{ containerPort: 70000 }]
      env: [{ name: A, value: 1 }]
    - name: b`);
  for (const expected of [
    'web.yaml:5: spec.restartPolicy: must be one of Always, OnFailure, Never, got the string "Sometimes"',
    'web.yaml:7: spec.containers[0].name: must be a DNS label',
    'web.yaml:9: spec.containers[0].ports[0].containerPort: must be a whole number from 1 to 65535, got the number 70000',
    'web.yaml:10: spec.containers[0].env[0].value: must be a string, got the number 1 (quote it)',
    'web.yaml:11: spec.containers[1].image: is required',
  ]) {
    assert.ok(message.includes(expected), `${expected}\nnot in\n${message}`);
  }
});

test('parseManifest() refuses invalid manifests, with the reason', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['containers: []', /must have at least one container/],
    [`containers: [${container}, ${container}]`, /two containers named "a"/],
    ['hostNetwork: true\ncontainers: [{ name: a, image: i }]', /spec.hostNetwork: is not supported/],
    ['containers: [{ name: a, image: i, volumeMounts: [{ name: v, mountPath: /v }] }]', /must have a volume "v"/],
    [`volumes: [{ name: v, nfs: { server: s, path: / } }]\ncontainers: [${container}]`, /nfs: is not supported yet/],
    [`volumes: [{ name: v, hostPath: { path: x } }]\ncontainers: [${container}]`, /hostPath.path: must be an absolute/],
    [
      `volumes: [{ name: v, emptyDir: {} }]\ncontainers: [{ name: a, image: i, volumeDevices: [{ name: v, devicePath: /dev/x }] }]`,
      /must have a hostPath volume "v", which container a has as a device/,
    ],
    [
      `volumes: [{ name: v, hostPath: { path: /x, type: Socket } }]\ncontainers: [${container}]`,
      /hostPath.type: must not be the string "Socket": what is behind it is in the host's kernel/,
    ],
    [
      'volumes: [{ name: v }]\ncontainers: [{ name: a, image: i, volumeMounts: [{ name: v, mountPath: /v, mountPropagation: Bidirectional }] }]',
      /mountPropagation: must be None or HostToContainer, got the string "Bidirectional": what a container mounts stays/,
    ],
    [
      'volumes: [{ name: v }]\ncontainers: [{ name: a, image: i, volumeMounts: [{ name: v, mountPath: /v, recursiveReadOnly: Enabled }] }]',
      /must have readOnly: true for its recursiveReadOnly/,
    ],
    [
      `volumes: [{ name: v, nfs: { server: x } }]\ncontainers: [${container}]`,
      /nfs: is not supported yet; use persistentV/,
    ],
    [`volumes: [{ name: v, emptyDir: {}, configMap: { name: c } }]\ncontainers: [${container}]`, /exactly one source/],
    [`volumes: [{ name: v }, { name: v }]\ncontainers: [${container}]`, /is given twice: "v"/],
    ['containers: [{ name: a, image: i, livenessProbe: { periodSeconds: 1 } }]', /exactly one action/],
    ['containers: [{ name: a, image: i, livenessProbe: { tcpSocket: { port: web } } }]', /port named "web"/],
    [
      'containers: [{ name: a, image: i, livenessProbe: { grpc: { port: web } } }]',
      /grpc.port: must be a whole number/,
    ],
    [`os: { name: windows }\ncontainers: [${container}]`, /spec.os.name: must be linux, got windows/],
    [
      'containers: [{ name: a, image: i, resources: { requests: { cpu: 2 }, limits: { cpu: 1 } } }]',
      /requests.cpu: must be at most the cpu limit of 1, got 2/,
    ],
    ['containers: [{ name: a, image: i, resources: { limits: { memory: 1GB } } }]', /must be a quantity/],
    ['containers: [{ name: a, image: i, resources: { limits: { memory: -1 } } }]', /not negative/],
    [
      `initContainers: [{ name: i, image: i, livenessProbe: { tcpSocket: { port: 1 } } }]\ncontainers: [${container}]`,
      /it is no sidecar/,
    ],
    [
      `securityContext: { sysctls: [{ name: kernel.panic, value: '1' }] }\ncontainers: [${container}]`,
      /namespaced sysctl/,
    ],
    [`dnsPolicy: None\ncontainers: [${container}]`, /nameserver/],
    [
      'containers: [{ name: a, image: i, ports: [{ containerPort: 1, hostPort: 8 }, { containerPort: 2, hostPort: 8 }] }]',
      /hostPort 8 twice/,
    ],
    ['containers: [{ name: a, image: i, volumeMounts: [{ name: v, mountPath: /a/../b }] }]', /without "\.\."/],
  ];
  for (const [spec, expected] of cases) assert.match(specProblem(spec), expected, spec);
});

test('parseManifest() refuses objects without a kind, misspelt kinds, and duplicates', () => {
  assert.match(problemsOf('- 1'), /must be an object with a kind/);
  assert.match(problemsOf('{}'), /must be Pod, ConfigMap, Secret, .* or List/);
  for (const kind of ['pod', 'POD', 'Pods', 'list', 'configmap']) {
    assert.match(
      problemsOf(`apiVersion: v1\nkind: ${kind}`),
      /web\.yaml:2: kind: must be Pod, .*; did you mean (Pod|List|ConfigMap)\?/,
    );
  }
  const pod = `${head}spec: { containers: [${container}] }\n`;
  assert.match(problemsOf(`${pod}---\n${pod}`), /web\.yaml:8: metadata\.name: Pod default\/web is given twice/);
  const files = ['a', 'b'].map((name) => ({ name, text: pod }));
  assert.throws(() => parseManifests(files), /Pod default\/web is given twice/);
});

test('parseManifest() refuses YAML that is invalid, ambiguous or a bomb', () => {
  assert.match(problemsOf('a: 1\na: 2'), /web\.yaml:2:1: .*unique/);
  assert.match(problemsOf('a: [1'), /it is not YAML/);
  assert.match(problemsOf(`${'['.repeat(200)}${']'.repeat(200)}`), /nested deeper than 64/);
  assert.match(problemsOf('['.repeat(50_000)), /Cannot read web\.yaml/);
  const laughs = ['a: &a [x, x, x, x, x, x, x, x, x]'];
  for (const [from, to] of ['ab', 'bc', 'cd', 'de', 'ef']) {
    laughs.push(`${to}: &${to} [*${from}, *${from}, *${from}, *${from}, *${from}, *${from}, *${from}, *${from}]`);
  }
  assert.match(
    problemsOf(laughs.join('\n')),
    /web\.yaml:6:\d+: with the alias \*e its aliases stand for more than 50000 values/,
  );
  assert.match(problemsOf('#'.repeat(4 * 1024 * 1024 + 1)), /at most 4194304 characters/);
  assert.match(problemsOf('---\na: 1\n'.repeat(10_000)), /web\.yaml:2001: it must have at most 1000 documents/);
});

test('parseManifest() never throws anything but `invalid`', () => {
  const words = fc.constantFrom(
    'kind',
    'Pod',
    'spec',
    'containers',
    'a',
    '&a',
    '*a',
    '{',
    '}',
    '[',
    ']',
    ':',
    '-',
    '\n',
    ' ',
    '"',
    '!!x',
    '|',
    '0x',
    '~',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(words, { maxLength: 40 }).map((all) => all.join(' ')),
      ),
      (text) => {
        try {
          parseManifest(text, 'fuzz');
        } catch (error) {
          assert.ok(error instanceof PodvmError && error.kind === 'invalid');
        }
      },
    ),
    { numRuns: 500 },
  );
});

test('parseManifest() warns of unknown fields and suggests known ones', () => {
  const { warnings } = parseManifest(
    `${head}spec:
  nodeSelector: { disk: ssd }
  containers:
    - name: a
      image: i
      comand: [x]
      whatever: 1
  tolerations: []
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: { name: web }
`,
    'web.yaml',
  );
  assert.deepEqual(
    warnings.map(({ line, field, message }) => `${line} ${field} ${message}`),
    [
      '5 spec.nodeSelector has no effect: there is no scheduler, the pod runs on this node',
      '9 spec.containers[0].comand is an unknown field and is ignored; did you mean command?',
      '10 spec.containers[0].whatever is an unknown field and is ignored',
      '13 kind NetworkPolicy web is skipped: nothing here enforces it',
    ],
  );
});

test('parseManifest() reads YAML as kubectl does', () => {
  const { secrets, configMaps, pods } = parseManifest(
    `
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: ConfigMap
    metadata: { name: c }
    data: { on: "yes" }
  - { apiVersion: v1, kind: Secret, metadata: { name: s }, data: { k: aGk= } }
  - apiVersion: v1
    kind: Pod
    metadata: { name: p, creationTimestamp: null }
    spec:
      volumes: [{ name: v, configMap: { name: c, defaultMode: 0400 } }, { name: w, emptyDir: }]
      containers: [{ name: a, image: i }]
`,
    'f',
  );
  assert.deepEqual(configMaps[0]?.data, { on: 'yes' });
  assert.deepEqual(secrets[0]?.data, { k: 'aGk=' });
  assert.equal(pods[0]?.spec.volumes[0]?.configMap?.defaultMode, 0o400);
  assert.deepEqual(pods[0]?.spec.volumes[1]?.emptyDir, { medium: '' });
  assert.match(specProblem(`containers: [{ name: a, image: i, env: [{ name: A, value: yes }] }]`), /the boolean true/);
});

test('parseManifest() fills in the defaults of Kubernetes', () => {
  const [pod] = parseManifest(`${head}spec: { containers: [${container}] }`, 'f').pods;
  assert.equal(pod?.metadata.namespace, 'default');
  assert.equal(pod?.spec.restartPolicy, 'Always');
  assert.equal(pod?.spec.terminationGracePeriodSeconds, 30);
  assert.equal(pod?.spec.dnsPolicy, 'ClusterFirst');
  assert.equal(pod?.spec.containers[0]?.terminationMessagePath, '/dev/termination-log');
});

test('parseManifest() reads zero values as absent where Kubernetes does, and keeps empty texts that mean something', () => {
  const read = (zero: string, text = '') => {
    const spec = `{ ${zero && 'restartPolicy: "", dnsPolicy: "", nodeName: "", hostname: "", subdomain: "", serviceAccountName: "",'}
      containers: [{ name: a, image: i, ${text} ports: [{ containerPort: 80 ${zero && ', hostPort: 0, hostIP: "", protocol: "", name: ""'} }],
        livenessProbe: { httpGet: { port: 80 ${zero && ', path: "", scheme: "", host: ""'} }
          ${zero && ', timeoutSeconds: 0, periodSeconds: 0, successThreshold: 0, failureThreshold: 0'} },
        env: [{ name: A, value: "" }, { name: B, valueFrom: { fieldRef: { fieldPath: metadata.name ${zero && ', apiVersion: ""'} } } }],
        ${zero && 'imagePullPolicy: "", terminationMessagePolicy: "", workingDir: "",'} }] }`;
    const service = `{ selector: { app: web }, ${zero && 'type: "",'} ports: [{ port: 80 ${zero && ', targetPort: 0, nodePort: 0, protocol: ""'} }] }`;
    const metadata = `{ name: web ${zero && ', namespace: "", uid: ""'} }`;
    return parseManifest(
      `apiVersion: v1\nkind: Pod\nmetadata: ${metadata}\nspec: ${spec}\n---\napiVersion: v1\nkind: Service\nmetadata: ${metadata}\nspec: ${service}`,
      'f',
    );
  };
  const withZeros = read('zero');
  assert.deepEqual(withZeros.warnings, []);
  const [plain] = read('').pods;
  assert.equal(JSON.stringify(withZeros.pods[0]), JSON.stringify(plain));
  assert.equal(plain?.spec.containers[0]?.env[0]?.value, '');
  assert.equal(JSON.stringify(withZeros.services[0]), JSON.stringify(read('').services[0]));
  assert.throws(() => read('zero', 'command: "",'), { message: /command: must be a list/ });
  for (const spec of ['activeDeadlineSeconds: 0', 'terminationGracePeriodSeconds: ""'])
    assert.match(specProblem(`${spec}\ncontainers: [${container}]`), /must be a whole number/);
});

test('parseManifest() accepts capabilities in either case, and refuses devices and huge pages by name', () => {
  const given = (spec: string) =>
    parseManifest(`${head}spec: { containers: [{ name: a, image: i, ${spec} }] }`, 'f').pods[0]?.spec.containers[0];
  assert.deepEqual(given('securityContext: { capabilities: { add: [cap_net_admin], drop: [all] } }')?.securityContext, {
    capabilities: { add: ['NET_ADMIN'], drop: ['ALL'] },
  });
  for (const [which, name, why] of [
    ['limits', 'nvidia.com/gpu', 'a machine has no devices of the host'],
    ['requests', 'hugepages-2Mi', 'the guest has no huge pages'],
  ] as const)
    assert.match(
      specProblem(`containers: [{ name: a, image: i, resources: { ${which}: { ${name}: 1 } } }]`),
      new RegExp(`resources\\.${which}\\S+: is not supported: ${why}`),
    );
  assert.deepEqual(given('resources: { limits: { nvidia.com/gpu: 0 } }')?.resources.limits, {});
});

test('parseManifest() says nothing of fields that ask for nothing', () => {
  const { warnings } = parseManifest(
    `${head}spec:
  hostNetwork: false
  affinity: {}
  nodeSelector: {}
  resourceClaims: []
  topologySpreadConstraints: []
  containers: [${container}]
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, sessionAffinity: None, loadBalancerSourceRanges: [] }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: web }
spec: { accessModes: [ReadWriteOnce], volumeName: "", selector: {}, resources: { requests: { storage: 1Gi } } }
`,
    'f',
  );
  assert.deepEqual(warnings, []);
});

test('parseManifest() says of a template that it must be rendered', () => {
  for (const text of [
    `apiVersion: v1\nkind: Pod\nmetadata: { name: web, labels: {{ .Values.labels }} }`,
    `{{- if .Values.enabled }}\napiVersion: v1\nkind: Pod\n{{- end }}\n`,
    `apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n`,
  ])
    assert.throws(() => parseManifest(text, 'f'), {
      message: /^Cannot read f: it is not YAML\nf:\d+:\d+: [^\n]+$/,
      fix: /If it is a template, render it first/,
    });
  assert.match(problemsOf('? [a]\n: 1'), /f?web\.yaml:1:\d+: a key must be a scalar/);
});

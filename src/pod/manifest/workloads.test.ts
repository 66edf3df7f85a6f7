import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseManifest } from './manifest.ts';
import { workloadAnnotation } from './workloads.ts';

const template = (more = '') =>
  `{ metadata: { labels: { app: web }, name: ignored, creationTimestamp: null }, spec: { containers: [{ name: c, image: i${more} }] } }`;
const workload = (kind: string, spec: string, group = 'apps/v1') =>
  `apiVersion: ${group}\nkind: ${kind}\nmetadata: { name: web, namespace: shop }\nspec: { selector: { matchLabels: { app: web } }, ${spec} }\n`;
const namesOf = (text: string) => parseManifest(text, 'f').pods.map(({ metadata }) => metadata.name);
const warningsOf = (text: string) =>
  parseManifest(text, 'f').warnings.map(({ line, field, message }) => `${line} ${field} ${message}`);

describe('parseManifest() makes the pods of a workload', () => {
  test('of a Deployment, a ReplicaSet and a DaemonSet from the template, numbered', () => {
    assert.deepEqual(namesOf(workload('Deployment', `replicas: 2, template: ${template()}`)), ['web-0', 'web-1']);
    assert.deepEqual(namesOf(workload('ReplicaSet', `template: ${template()}`)), ['web-0']);
    assert.deepEqual(namesOf(workload('DaemonSet', `template: ${template()}`)), ['web-0']);
    assert.deepEqual(namesOf(workload('Deployment', `replicas: 0, template: ${template()}`)), []);
    const [pod] = parseManifest(workload('Deployment', `template: ${template()}`), 'f').pods;
    assert.deepEqual(pod?.metadata, {
      name: 'web-0',
      namespace: 'shop',
      labels: { app: 'web' },
      annotations: { [workloadAnnotation]: 'Deployment/web' },
    });
    assert.equal(pod?.spec.restartPolicy, 'Always');
  });

  test('with claims whose names are those of files', () => {
    const podTemplate = template();
    const claim = (name: string) =>
      `{ metadata: { name: ${name} }, spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 1Gi } } } }`;
    const set = (name: string) =>
      workload(
        'StatefulSet',
        `ordinals: { start: 1000000 }, volumeClaimTemplates: [${claim('v'.repeat(63))}], template: ${podTemplate}`,
      ).replace('name: web', `name: ${name}`);
    assert.deepEqual(
      parseManifest(set('s'.repeat(52)), 'f').claims.map(({ metadata }) => metadata.name.length),
      [63 + 1 + 52 + 1 + 7],
    );
  });

  test('of a StatefulSet only with a name that is a host name, also with its number', () => {
    const set = (name: string) =>
      workload('StatefulSet', `ordinals: { start: 1000000 }, template: ${template()}`).replace(
        'name: web',
        `name: ${name}`,
      );
    const [pod] = parseManifest(set('s'.repeat(52)), 'f').pods;
    assert.equal(pod?.spec.hostname, `${'s'.repeat(52)}-1000000`);
    assert.throws(() => parseManifest(set('s'.repeat(53)), 'f'), /must have a name of at most 52 characters/);
    assert.throws(() => parseManifest(set('db.example'), 'f'), /must have a name without dots, which becomes the host/);
  });

  test('once for a name, and up to the limit of objects, however often an alias repeats it', () => {
    const first = `apiVersion: apps/v1, kind: Deployment, spec: { replicas: 256, selector: {}, template: ${template()} }`;
    const list = (more: (at: number) => string) =>
      `apiVersion: v1\nkind: List\nitems:\n- &a { ${first}, metadata: { name: a } }\n${Array.from({ length: 50 }, (_, at) => more(at)).join('')}`;
    assert.throws(
      () => namesOf(list(() => '- *a\n')),
      /it has 50 problems\nf:4: metadata.name: Deployment default\/a is given twice/,
    );
    assert.throws(
      () => namesOf(list((at) => `- { <<: *a, metadata: { name: b${at} } }\n`)),
      /it has a problem\n.*more than 1000 objects/,
    );
  });

  test('of a StatefulSet with names, domain and claims of their own', () => {
    const claims =
      'volumeClaimTemplates: [{ apiVersion: v1, kind: PersistentVolumeClaim, metadata: { name: data }, spec: { accessModes: [ReadWriteOnce], ' +
      'storageClassName: fast, resources: { requests: { storage: 1Gi } } } }]';
    const mount = ', volumeMounts: [{ name: data, mountPath: /data }]';
    const text = workload(
      'StatefulSet',
      `replicas: 2, serviceName: db, ordinals: { start: 5 }, ${claims}, template: ${template(mount)}`,
    );
    const { pods, claims: made, warnings } = parseManifest(text, 'f');
    assert.deepEqual(
      pods.map(({ metadata, spec }) => [metadata.name, spec.hostname, spec.subdomain, spec.volumes]),
      [5, 6].map((number) => [
        `web-${number}`,
        `web-${number}`,
        'db',
        [{ name: 'data', persistentVolumeClaim: { claimName: `data-web-${number}`, readOnly: false } }],
      ]),
    );
    assert.equal(pods[0]?.metadata.labels['apps.kubernetes.io/pod-index'], '5');
    assert.deepEqual(
      made.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`),
      ['shop/data-web-5', 'shop/data-web-6'],
    );
    assert.deepEqual(
      warnings.map(({ message }) => message),
      ['has no effect: the volume is a disk of this node'],
    );
  });

  test('and names fields without effect as those of a Pod, with their lines', () => {
    const spec = 'affinity: { podAffinity: {} }, containers: [{ name: c, image: i, imagePolicy: x }]';
    const text = workload(
      'Deployment',
      `revisionHistoryLimit: 1,\n  strategy: { rollingUpdate: { maxSurge: 1 }, type: RollingUpdate },\n  template: { metadata: { labels: { app: web } },\n  spec: { ${spec} } }`,
    );
    assert.deepEqual(warningsOf(text), [
      '5 spec.strategy.rollingUpdate has no effect: pods are replaced one after another, each when the one before runs',
      '7 spec.template.spec.affinity has no effect: there is no scheduler, the pod runs on this node',
      '7 spec.template.spec.containers[0].imagePolicy is an unknown field and is ignored; did you mean imagePullPolicy?',
    ]);
  });

  test('and does not read a 0 as absent that Kubernetes does not', () => {
    const ending = template().replace('spec: {', 'spec: { restartPolicy: Never,');
    const job = (spec: string) => parseManifest(workload('Job', `${spec}, template: ${ending}`, 'batch/v1'), 'f');
    for (const field of ['backoffLimitPerIndex', 'maxFailedIndexes']) {
      const zero = `completions: 2, completionMode: Indexed, ${field}: 0`;
      assert.throws(() => job(zero), { message: new RegExp(`${field}: is not supported; use backoffLimit`) });
    }
    const { jobs, warnings } = job('ttlSecondsAfterFinished: 0');
    assert.deepEqual([jobs.length, warnings.map(({ field }) => field)], [1, ['spec.ttlSecondsAfterFinished']]);
  });

  test('unless it needs what is missing, and runs the other pods of the file', () => {
    const pod =
      '---\napiVersion: v1\nkind: Pod\nmetadata: { name: good }\nspec: { containers: [{ name: c, image: i }] }\n';
    const host = template().replace('containers', 'hostNetwork: true, containers');
    const { pods, refused } = parseManifest(`${workload('Deployment', `template: ${host}`)}${pod}`, 'f');
    assert.deepEqual([pods.length, refused[0]?.name], [1, 'web']);
    assert.match(refused[0]?.problems[0]?.field ?? '', /^spec\.template\.spec\.hostNetwork$/);
    const ending = template().replace('spec: {', 'spec: { restartPolicy: Never,');
    const queue = workload('Job', `parallelism: 2, template: ${ending}`, 'batch/v1');
    const others = parseManifest(`${queue}${pod}`, 'f');
    assert.deepEqual([others.pods.length, others.jobs.length, others.refused.length], [1, 0, 1]);
  });

  test('and refuses mistakes', () => {
    for (const [text, problem] of [
      [workload('Deployment', `template: ${template()}`, 'v1'), /apiVersion: must be apps\/v1/],
      [
        workload('Deployment', `template: ${template()}`).replace('{ app: web } }', '{ app: x } }'),
        /matchLabels are among/,
      ],
      [
        workload('Deployment', `replicas: 300, template: ${template()}`),
        /replicas: must be a whole number from 0 to 256/,
      ],
      [workload('Deployment', 'paused: true, replicas: 1'), /spec\.template: is required/],
      [
        workload('Deployment', `template: ${template().replace('spec: {', 'spec: { restartPolicy: Never,')}`),
        /must have the restartPolicy Always/,
      ],
      [workload('Job', `template: ${template()}`, 'batch/v1'), /must have the restartPolicy Never or OnFailure/],
      [
        `${workload('Deployment', `template: ${template()}`)}---\n${workload('ReplicaSet', `template: ${template()}`)}`,
        /Pod shop\/web-0 is given twice/,
      ],
    ] as const)
      assert.throws(() => parseManifest(text, 'f'), { kind: 'invalid', message: problem });
    assert.deepEqual(warningsOf(workload('Deployment', 'x: 1', 'extensions/v1beta1')), [
      '2 kind Deployment web is skipped: podvm does not know extensions/v1beta1',
    ]);
  });
});

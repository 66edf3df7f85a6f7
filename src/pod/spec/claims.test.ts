import assert from 'node:assert/strict';
import { writeFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { podAnnotations } from '#base/pod-annotations.ts';
import { parseManifest } from '../manifest/manifest.ts';
import { startFakePod } from '../testing/started-pod.ts';

const directory = await mkdtemp(join(tmpdir(), 'podvm-claims-'));
after(() => rm(directory, { recursive: true }));
const volumePath = (namespace: string, name: string) => join(directory, `${namespace}-${name}`);
const spec = (mount = '', claim = '') => `{
  restartPolicy: Never,
  volumes: [{ name: v, persistentVolumeClaim: { claimName: data ${claim} } }],
  containers: [{ name: a, image: i, volumeMounts: [{ name: v, mountPath: /data ${mount} }] }],
}`;

test("a claim's volume is a disk that the machine mounts, read-only if claim or mount say so", async () => {
  await writeFile(volumePath('default', 'data'), '');
  for (const [mount, claim, readOnly] of [
    ['', '', false],
    [', readOnly: true', '', true],
    ['', ', readOnly: true', true],
  ] as const) {
    const { running, sandboxes } = startFakePod(spec(mount, claim), {}, { volumePath });
    await new Promise<void>((resolve) => running.onEvent(({ reason }) => reason === 'Started' && resolve()));
    const path = volumePath('default', 'data');
    assert.equal(sandboxes.list()[0]?.spec.annotations[podAnnotations.blockVolumes.name], path);
    const source = { kind: 'host', path, propagation: 'private', fillsDisk: true };
    assert.deepEqual(sandboxes.current('a').spec.mounts, [{ mountPath: '/data', source, readOnly }]);
  }
});

test('a pod whose claim has no volume, or whose node has none, ends before a machine is made', async () => {
  for (const [given, message] of [
    [
      { volumePath: () => join(directory, 'none') },
      /Cannot mount the claim default\/data: the node has no such volume/,
    ],
    [{}, /Cannot mount the claim default\/data: this node has no named volumes/],
  ] as const) {
    const { running, sandboxes } = startFakePod(spec(), {}, given);
    const { exitCode, message: why = '' } = await running.finished;
    assert.equal(exitCode, 125);
    assert.match(why, message);
    assert.deepEqual(sandboxes.list(), []);
  }
});

const claim = (more: string) =>
  `apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: { name: data }\nspec: { ${more} }\n`;
const size = 'resources: { requests: { storage: 1Gi } }';

test('parseManifest() reads claims, warns of what a node has not, and refuses what it cannot give', () => {
  const { claims, warnings } = parseManifest(
    claim(`accessModes: [ReadWriteOnce], storageClassName: fast, volumeMode: Filesystem, ${size}`),
    'f',
  );
  assert.equal(claims[0]?.spec.resources.requests.storage, '1Gi');
  assert.deepEqual(
    warnings.map(({ field, message }) => `${field} ${message}`),
    ['spec.storageClassName has no effect: the volume is a disk of this node'],
  );
  for (const [more, problem] of [
    [`accessModes: [ReadWriteMany], ${size}`, /accessModes\[0\]: must be ReadWriteOnce or ReadWriteOncePod, got/],
    [`accessModes: [], ${size}`, /must have at least one access mode/],
    ['accessModes: [ReadWriteOnce]', /spec\.resources: is required/],
    [`accessModes: [ReadWriteOnce], volumeMode: Block, ${size}`, /volumeMode: must be Filesystem/],
    [`accessModes: [ReadWriteOnce], volumeName: mine, ${size}`, /volumeName: is not supported/],
    [`accessModes: [ReadWriteOnce], dataSource: { name: x }, ${size}`, /dataSource: is not supported/],
  ] as const)
    assert.throws(() => parseManifest(claim(more), 'f'), { kind: 'invalid', message: problem });
});

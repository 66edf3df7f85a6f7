import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { programDirectory } from '#host/program-files.ts';
import { parseManifest } from '#pod/manifest/manifest.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { PodSource } from './ended-record.ts';
import { parseSource, storedSource } from './ended-record.ts';
import { isSameSource } from './same-pod.ts';

const sourceOf = (pod: Pod): PodSource => ({ pod, configMaps: [], secrets: [], network: 'cni' });

test('parseSource() finds the pods of each example as they are read from their files', async () => {
  const directory = join(programDirectory, 'examples');
  const files = (await readdir(directory)).filter((name) => name.endsWith('.yaml'));
  const pods = await Promise.all(
    files.map(async (name) => parseManifest(await readFile(join(directory, name), 'utf8'), name).pods),
  );
  assert.ok(pods.flat().length >= files.length - 1);
  for (const pod of pods.flat()) assert.deepEqual(parseSource(storedSource(sourceOf(pod))).pod, pod);
});

test('parseSource() gives a pod of an earlier version the defaults of fields that it did not know', () => {
  const [pod] = parseManifest(
    '{ apiVersion: v1, kind: Pod, metadata: { name: web }, spec: { containers: [{ name: c, image: i }] } }',
    'f',
  ).pods;
  assert.ok(pod);
  const { hostUsers: _, terminationGracePeriodSeconds: __, ...spec } = pod.spec;
  const [container] = pod.spec.containers;
  assert.ok(container);
  const { volumeDevices: ___, ...older } = container;
  const record = storedSource({ ...sourceOf(pod), pod: { ...pod, spec: { ...spec, containers: [older] } } as Pod });
  assert.ok(isSameSource(parseSource(record), sourceOf(pod)), 'podvm apply changes nothing');
});

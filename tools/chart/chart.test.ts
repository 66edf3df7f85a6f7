import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { parseManifests } from '#pod/manifest/manifest.ts';
import { chartDirectory, headOf, plainManifests } from './chart.ts';

interface Rendered {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: {
    readonly selector: { readonly matchLabels: Readonly<Record<string, string>> };
    readonly template: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>>; readonly annotations: object };
      readonly spec: {
        readonly nodeSelector: unknown;
        readonly volumes: readonly { readonly name: string; readonly downwardAPI?: unknown }[];
        readonly initContainers: readonly { readonly image: string; readonly args: readonly string[] }[];
      };
    };
  };
  readonly scheduling?: { readonly nodeSelector: unknown };
}

const text = await readFile(plainManifests, 'utf8');
const objects = parseAllDocuments(text).flatMap(
  (document): Rendered[] => (document.contents === null ? [] : [document.toJS() as Rendered]), // SAFE: Helm's linter has judged it; tests fail otherwise
);
const ofKind = (kind: string) => objects.find((object) => object.kind === kind);
const daemonSet = ofKind('DaemonSet')?.spec;

test('the plain manifests are of this chart, and the chart of this version', async () => {
  assert.ok(text.startsWith(await headOf(chartDirectory)), 'run `npm run chart`');
  const { version } = JSON.parse(await readFile(join(chartDirectory, '../../../package.json'), 'utf8')) as {
    version: string;
  };
  const chart = await readFile(join(chartDirectory, 'Chart.yaml'), 'utf8');
  assert.match(chart, new RegExp(`^version: ${version}\\nappVersion: ${version}$`, 'm'));
  assert.equal(daemonSet?.template.spec.initContainers[0]?.image, `localhost/podvm/node:${version}`);
});

test('the installer is a pod whose only obstacle in a machine is that it asks for the processes of the host', () => {
  const { metadata, spec } = daemonSet?.template ?? assert.fail('there is no DaemonSet');
  assert.deepEqual(metadata.labels, daemonSet?.selector.matchLabels);
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'installer', ...metadata }, spec };
  const read = () => parseManifests([{ name: 'installer.yaml', text: JSON.stringify(pod) }]);
  assert.throws(read, ({ message }: Error) =>
    /: it has a problem\n[^\n]*spec\.hostPID: is not supported/.test(message),
  );
});

test('pods of the runtime class go to the nodes of the installer', () => {
  const runtimeClass = ofKind('RuntimeClass');
  assert.deepEqual(runtimeClass?.scheduling?.nodeSelector, daemonSet?.template.spec.nodeSelector);
});

test('settings are part of the template of the pods, with which they change and are taken back', () => {
  const { metadata, spec } = daemonSet?.template ?? assert.fail('there is no DaemonSet');
  assert.deepEqual(metadata.annotations, { 'podvm.dev/settings': '{}' });
  assert.deepEqual(spec.volumes.find(({ name }) => name === 'settings')?.downwardAPI, {
    items: [{ path: 'podvm.yaml', fieldRef: { fieldPath: "metadata.annotations['podvm.dev/settings']" } }],
  });
});

test('the entry point of the node image knows the words of the chart', async () => {
  const script = await readFile(join(chartDirectory, '../../../tools/release/node-image/podvm-node'), 'utf8');
  const words = daemonSet?.template.spec.initContainers[0]?.args.filter((word) => word.startsWith('--')) ?? [];
  assert.deepEqual(words, ['--program', '--root', '--containerd']);
  for (const word of words) assert.ok(script.includes(`    ${word})`) || script.includes(`${word} |`), word);
});

import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { run } from '#host/process/run.ts';
import { goVersion } from '../../test/conformance/go-module.ts';
import { buildHelm } from './build-helm.ts';
import { chartDirectory, headOf, plainManifests } from './chart.ts';

/**
 * `npm run chart` renders the Helm chart, `deploy/helm/podvm`, as plain manifests, `deploy/podvm.yaml`, with a Helm that it
 * builds from its Go module and keeps beside the conformance tools. Before, Helm's linter judges the chart.
 */
const { values } = parseArgs({ options: { cache: { type: 'string', default: '/var/cache/podvm-conformance' } } });
const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => interruption.abort());
const { signal } = interruption;

if ((await goVersion(signal)) === undefined) throw new Error('Cannot build Helm: this machine has no Go');
const helm = await buildHelm(values.cache, signal);
const lint = await run(helm, ['lint', '--strict', chartDirectory], { signal });
process.stdout.write(lint.stdout);
const options = ['--namespace', 'podvm', '--set', 'image.pullPolicy=IfNotPresent'];
const { stdout } = await run(helm, ['template', 'podvm', chartDirectory, ...options], { signal });
await writeFile(plainManifests, `${await headOf(chartDirectory)}${stdout}`);
const withValue = async (value: string) =>
  (await run(helm, ['template', 'podvm', chartDirectory, ...options, '--set', value], { signal })).stdout;
if ((await withValue('action=uninstall')).includes('kind: RuntimeClass'))
  throw new Error('An uninstallation keeps RuntimeClasses');
if (!(await withValue('paths.root=/srv/podvm')).includes(' /srv/podvm/podvm.sock$'))
  throw new Error('With another state directory, no pod becomes ready');
if (!(await withValue('settings.pool=3')).includes('podvm.dev/settings: "pool: 3"'))
  throw new Error('Settings are not part of the template of the pods');
process.stdout.write(`wrote ${plainManifests}\n`);

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { run } from '#host/process/run.ts';
import { goEnv, goVersion, inNewDirectory, sourceOf } from '../../test/conformance/go-module.ts';
import { chartDirectory, headOf, plainManifests } from './chart.ts';

/**
 * `npm run chart` renders the Helm chart, `deploy/helm/podvm`, as plain manifests, `deploy/podvm.yaml`, with a Helm that it
 * builds from its Go module and keeps beside the conformance tools. Before, Helm's linter judges the chart.
 */
const module = {
  path: 'helm.sh/helm/v4',
  version: 'v4.3.1',
  sum: 'h1:UndCoLe9UPmNoL7IvWzaUXveL7T5t/ijoorEmgJdI9g=',
};
const buildTimeoutMs = 60 * 60_000;

const { values } = parseArgs({ options: { cache: { type: 'string', default: '/var/cache/podvm-conformance' } } });
const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => interruption.abort());
const { signal } = interruption;

const helm = join(await buildHelm(values.cache), 'helm');
const lint = await run(helm, ['lint', '--strict', chartDirectory], { signal });
process.stdout.write(lint.stdout);
const options = ['--namespace', 'podvm', '--set', 'image.pullPolicy=IfNotPresent'];
const { stdout } = await run(helm, ['template', 'podvm', chartDirectory, ...options], { signal });
await writeFile(plainManifests, `${await headOf(chartDirectory)}${stdout}`);
const removal = await run(helm, ['template', 'podvm', chartDirectory, ...options, '--set', 'action=uninstall'], {
  signal,
});
if (removal.stdout.includes('kind: RuntimeClass')) throw new Error('An uninstallation keeps RuntimeClasses');
process.stdout.write(`wrote ${plainManifests}\n`);

async function buildHelm(cache: string): Promise<string> {
  const home = join(cache, `helm-${module.version}`);
  if ((await goVersion(signal)) === undefined) throw new Error('Cannot build Helm: this machine has no Go');
  await inNewDirectory(home, async (work) => {
    const build = { signal, env: { ...goEnv(), CGO_ENABLED: '0' }, timeoutMs: buildTimeoutMs, cwd: work };
    const flags = ['-trimpath', '-buildvcs=false', '-ldflags=-s -w', '-o', work];
    await run('go', ['build', ...flags, './cmd/helm'], { ...build, cwd: await sourceOf(module, build) });
  });
  return home;
}

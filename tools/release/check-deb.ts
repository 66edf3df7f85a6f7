import assert from 'node:assert/strict';
import { mkdtempDisposable } from 'node:fs/promises';
import { join } from 'node:path';
import { type TriedDistribution, triedDistributions } from '#host/distribution.ts';
import { run } from '#host/process/run.ts';
import type { Checking } from './checking.ts';
import { insideRoot, makeFreshRoot, makeHostRoot } from './fresh-root.ts';
import type { Release } from './release.ts';
import { environmentOf, rootTraces, shell, use } from './try-form.ts';

/** Installs, uses and purges the Debian package in a fresh root of each distribution, after lintian has found no error in it. */
export async function checkDeb({ release, dist, work, report }: Checking): Promise<void> {
  await checkWithLintian(release, dist, work);
  report('  lintian found no error');
  for (const { id, name } of triedDistributions) {
    await using own = await mkdtempDisposable(join(work, 'root-'));
    await run('chmod', ['711', own.path]);
    await checkDebIn(id, release, dist, own.path);
    report(`  in a fresh ${name}`);
  }
}

/** Checks the package with Debian 13's lintian. Errors: what it found. */
async function checkWithLintian({ version, signal }: Release, dist: string, work: string): Promise<void> {
  await using own = await mkdtempDisposable(join(work, 'lintian-'));
  const root = await makeFreshRoot('debian 13', ['lintian'], own.path, signal);
  const line = `lintian --allow-root --fail-on error /dist/podvm_${version}_amd64.deb >&2`;
  await shell([line], environmentOf({}), insideRoot(root, { '/dist': dist }));
}

async function checkDebIn(
  distribution: TriedDistribution,
  { repo, version, kernelVersion, signal }: Release,
  dist: string,
  work: string,
): Promise<void> {
  const root = await makeHostRoot(distribution, ['libstdc++6'], work, signal);
  const inside = insideRoot(root, { '/dist': dist, '/examples': join(repo, 'examples') });
  const lines = [
    rootTraces,
    'traces >/tmp/before',
    `dpkg --install /dist/podvm_${version}_amd64.deb`,
    ...use('podvm', '/examples/hello.yaml', kernelVersion, `/dist/podvm-${version}.bundle`),
    'dpkg --purge podvm',
    'traces >/tmp/after',
    'diff /tmp/before /tmp/after >&2',
  ];
  assert.match(await shell(lines, environmentOf({}), inside), /^Hello from hello, /m);
}

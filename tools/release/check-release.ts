import assert from 'node:assert/strict';
import { mkdtempDisposable, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { checkDeb } from './check-deb.ts';
import { checkImage } from './check-image.ts';
import { checkUpgrade } from './check-upgrade.ts';
import type { Checking } from './checking.ts';
import { makeAll } from './make-all.ts';
import { readRelease } from './release.ts';
import { makeSecondState } from './second-state.ts';
import { environmentOf, networkTraces, shell, use } from './try-form.ts';

const timeoutMs = 30 * 60_000;

/** The parts of the check, in order, and what their success means. */
const parts = {
  bytes: [checkBytes, 'made a second time, with the same bytes; no form is too large'],
  npm: [
    checkNpm,
    'npm package: installed, set up from the bundle without a network, ran a pod, removed without a trace',
  ],
  deb: [checkDeb, 'Debian package: the same in a fresh root of each distribution'],
  image: [checkImage, 'node image: installed PodVM on a fresh host from a container, a pod ran, and it removed it'],
  upgrade: [checkUpgrade, 'upgrade and downgrade: pods went on'],
} as const;
export type CheckPart = keyof typeof parts;
export const checkParts = Object.keys(parts) as readonly CheckPart[]; // SAFE: the keys of that very table

/** Checks the forms in `dist`: makes them again, installs, uses and removes each. Errors: what differs or fails. */
export async function checkRelease(checking: Omit<Checking, 'work'>, wanted: readonly CheckPart[]): Promise<void> {
  for (const part of wanted) {
    await using work = await mkdtempDisposable('/var/tmp/podvm-release-');
    await run('chmod', ['711', work.path]); // jailed machines reach what is theirs in it
    const [check, means] = parts[part];
    await check({ ...checking, work: work.path });
    checking.report(`ok: ${means}`);
  }
}

/** Maximum size of each form, in bytes. */
const maxBytes = { '.tgz': 6_000_000, '.deb': 45_000_000, '.bundle': 80_000_000, '.oci.tar': 110_000_000 } as const;

async function checkSizes(dist: string): Promise<void> {
  for (const file of await readdir(dist)) {
    const { size } = await stat(join(dist, file));
    const [, max = size] = Object.entries(maxBytes).find(([ending]) => file.endsWith(ending)) ?? [];
    assert.ok(size <= max, `${file} has ${size} bytes, more than ${max}`);
  }
}

/** Builds agent and file server again, in a separate state directory. */
async function checkBytes({ release, dist, work }: Checking): Promise<void> {
  await checkSizes(dist);
  const root = join(work, 'second-state');
  await makeSecondState(release.root, root, release.signal);
  const env = environmentOf({ PODVM_ROOT: root, PODVM_BACKGROUND: 'off', PODVM_TEMPLATE: 'off' });
  await run(join(release.repo, 'podvm'), ['setup'], { env, timeoutMs });
  const second = join(work, 'second');
  const again = { ...(await readRelease(release.repo, root, release.signal)), epoch: release.epoch };
  const files = await makeAll(again, second);
  for (const file of [...files, 'SHA256SUMS']) {
    const same = (await readFile(join(dist, file))).equals(await readFile(join(second, file)));
    assert.ok(same, `${file} has other bytes the second time`);
  }
}

async function checkNpm({ release: { repo, version, kernelVersion }, dist, work }: Checking): Promise<void> {
  const prefix = join(work, 'npm');
  const root = join(work, 'npm-state');
  const env = environmentOf({
    PODVM_ROOT: root,
    PODVM_BACKGROUND: 'off',
    npm_config_prefix: prefix,
    npm_config_cache: join(work, 'npm-cache'),
  });
  const tarball = join(dist, `podvm-${version}.tgz`);
  await shell([`npm install --global --no-audit --no-fund ${tarball}`], env);
  const podvm = join(prefix, 'bin/podvm');
  const lines = [
    `before=$(${networkTraces.join('; ')})`,
    ...use(podvm, join(repo, 'examples/hello.yaml'), kernelVersion, join(dist, `podvm-${version}.bundle`)),
    `${podvm} uninstall --state`,
    `after=$(${networkTraces.join('; ')})`,
    'test "$before" = "$after" || { echo "$after" >&2; exit 1; }',
  ];
  assert.match(await shell(lines, env, ['unshare', '--net', '--mount']), /^Hello from hello, /m);
  const npx = await shell([`npx --yes --package=${tarball} podvm --version`], env);
  assert.equal(npx.trim(), version);
  await shell(['npm uninstall --global podvm'], env);
  assert.deepEqual(await readdir(join(prefix, 'lib/node_modules')), []);
  assert.deepEqual(await readdir(join(prefix, 'bin')), []);
  assert.ok(!(await readdir(work)).includes('npm-state'));
}

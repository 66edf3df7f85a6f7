import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TriedDistribution, triedDistributions } from '#host/distribution.ts';
import { run } from '#host/run.ts';
import { readHostTools } from '#setup/host-tools.ts';
import { readCurrent } from '#setup/setup.ts';
import { insideRoot, makeFreshRoot } from './fresh-root.ts';
import { makeAll } from './make-all.ts';
import { readRelease, type Release } from './release.ts';

type Report = (line: string) => void;

const timeoutMs = 30 * 60_000;
/** Parts made from Debian packages; the others are made from the sources. */
const fromDebian = /^(?:build-root|sysroot|kernel|crun|modules)-/;

/** The parts of the check, in order, and what their success means. */
const parts = {
  bytes: [checkBytes, 'made a second time, with the same bytes; no form is too large'],
  npm: [
    checkNpm,
    'npm package: installed, set up from the bundle without a network, ran a pod, removed without a trace',
  ],
  deb: [checkDeb, 'Debian package: the same in a fresh root of each distribution'],
} as const;
export type CheckPart = keyof typeof parts;
export const checkParts = Object.keys(parts) as readonly CheckPart[]; // SAFE: the keys of that very table

/** Checks the forms in `dist`: makes them again, installs, uses and removes each. Errors: what differs or fails. */
export async function checkRelease(
  release: Release,
  dist: string,
  wanted: readonly CheckPart[],
  report: Report,
): Promise<void> {
  await using work = await mkdtempDisposable('/var/tmp/podvm-release-');
  await run('chmod', ['711', work.path]); // jailed machines reach what is theirs in it
  for (const part of wanted) {
    const [check, means] = parts[part];
    await check(release, dist, work.path, report);
    report(`ok: ${means}`);
  }
}

/** Maximum size of each form, in bytes. */
const maxBytes = { '.tgz': 6_000_000, '.deb': 45_000_000, '.bundle': 80_000_000 } as const;

async function checkSizes(dist: string): Promise<void> {
  for (const file of await readdir(dist)) {
    const { size } = await stat(join(dist, file));
    const [, max = size] = Object.entries(maxBytes).find(([ending]) => file.endsWith(ending)) ?? [];
    assert.ok(size <= max, `${file} has ${size} bytes, more than ${max}`);
  }
}

/** Builds agent and file server again, in a separate state directory. */
async function checkBytes(release: Release, dist: string, work: string): Promise<void> {
  await checkSizes(dist);
  const root = join(work, 'second-state');
  await mkdir(join(root, 'parts'), { recursive: true });
  const made = (await readdir(join(release.root, 'parts'))).filter((part) => fromDebian.test(part));
  const from = made.map((part) => join(release.root, 'parts', part));
  await run('cp', ['-a', ...from, join(root, 'parts')], { timeoutMs });
  const current = await readCurrent(release.root);
  await mkdir(join(root, 'assets'));
  await writeFile(join(root, 'assets/current.json'), JSON.stringify({ ...current, key: 'of none' })); // keeps the generation; the key fits no program
  const env = environmentOf({ PODVM_ROOT: root, PODVM_TEMPLATE: 'off' });
  await run(join(release.repo, 'podvm'), ['setup'], { env, timeoutMs });
  const second = join(work, 'second');
  const again = { ...(await readRelease(release.repo, root, release.signal)), epoch: release.epoch };
  const files = await makeAll(again, second);
  for (const file of [...files, 'SHA256SUMS']) {
    const same = (await readFile(join(dist, file))).equals(await readFile(join(second, file)));
    assert.ok(same, `${file} has other bytes the second time`);
  }
}

/** Runs a shell script, which ends at the first command that fails. */
const shell = async (
  lines: readonly string[],
  env: Readonly<Record<string, string>>,
  inside: readonly string[] = [],
) => {
  return (await run('env', [...inside, 'sh', '-ec', lines.join('\n')], { env, timeoutMs })).stdout;
};

/**
 * Prints network and mounts, which a removal must restore. Tables of iptables without rules, and counters, are left
 * out.
 */
const traces = [
  'ip -br link',
  "{ iptables-save; ip6tables-save; } | grep '^-' || true",
  "nft list ruleset | grep -v 'table ip6* nat' | grep 'table' || true",
];

/** Runs a command, and ends with 1 if it fails or logs a warning. */
const quietly = String.raw`quietly() {
  said=$(mktemp)
  "$@" 2>"$said" || { cat "$said" >&2; exit 1; }
  if grep -E '^[0-9T:.-]+Z (warn|error) ' "$said" >&2; then exit 1; fi
  rm "$said"
}`;
const use = (podvm: string, bundle: string, hello: string) => [
  quietly,
  `${podvm} version`,
  `quietly ${podvm} setup --from ${bundle}`,
  `quietly ${podvm} run ${hello}`,
];

async function checkNpm({ repo, version }: Release, dist: string, work: string): Promise<void> {
  const prefix = join(work, 'npm');
  const root = join(work, 'npm-state');
  const env = environmentOf({ PODVM_ROOT: root, npm_config_prefix: prefix, npm_config_cache: join(work, 'npm-cache') });
  const tarball = join(dist, `podvm-${version}.tgz`);
  await shell([`npm install --global --no-audit --no-fund ${tarball}`], env);
  const podvm = join(prefix, 'bin/podvm');
  const lines = [
    `before=$(${traces.join('; ')})`,
    ...use(podvm, join(dist, `podvm-${version}.bundle`), join(repo, 'examples/hello.yaml')),
    `${podvm} uninstall --state`,
    `after=$(${traces.join('; ')})`,
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

async function checkDeb(release: Release, dist: string, work: string, report: Report): Promise<void> {
  for (const { id, name } of triedDistributions) {
    await using own = await mkdtempDisposable(join(work, 'root-'));
    await run('chmod', ['711', own.path]);
    await checkDebIn(id, release, dist, own.path);
    report(`  in a fresh ${name}`);
  }
}

async function checkDebIn(
  distribution: TriedDistribution,
  { repo, version, signal }: Release,
  dist: string,
  work: string,
): Promise<void> {
  const tools = (await readHostTools()).filter(({ makesParts }) => !makesParts).map((tool) => tool.package);
  const root = await makeFreshRoot(distribution, ['libstdc++6', ...tools], work, signal);
  const inside = insideRoot(root, { '/dist': dist, '/examples': join(repo, 'examples') });
  const files = String.raw`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache/debconf \) -prune -o -print | sort`;
  const lines = [
    `traces() { ${files}; ${traces.join('; ')}; }`,
    'traces >/tmp/before',
    `dpkg --install /dist/podvm_${version}_amd64.deb`,
    ...use('podvm', `/dist/podvm-${version}.bundle`, '/examples/hello.yaml'),
    'dpkg --purge podvm',
    'traces >/tmp/after',
    'diff /tmp/before /tmp/after >&2',
  ];
  assert.match(await shell(lines, environmentOf({}), inside), /^Hello from hello, /m);
}

/** The caller's environment with these variables. */
const environmentOf = (more: Readonly<Record<string, string>>): Record<string, string> => {
  const own = Object.entries(process.env).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const],
  );
  return { ...Object.fromEntries(own), ...more };
};

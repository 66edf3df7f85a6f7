import { build } from 'esbuild';
import assert from 'node:assert/strict';
import { copyFile, cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { run } from '#host/process/run.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import { openNode } from './node.ts';

const soon = () => AbortSignal.timeout(600_000);

/** Programs that podvm of an ordinary user runs. The image has busybox's of others. */
const usualPrograms = ['flock', 'sh', 'mount', 'newgidmap', 'newuidmap', 'nsenter', 'setpriv', 'sleep', 'unshare'];

/** Makes an ordinary user with subordinate ids and a home. `$1`: what runs then. */
const setUp = `
ln -s usr/lib usr/lib64 /
cp -Rf /opt/files/. / # replaces links to busybox; started from the share, each program takes a second when emulated
chmod 4755 /usr/bin/newuidmap /usr/bin/newgidmap
echo 'anna:x:1000:1000::/home/anna:/bin/sh' >>/etc/passwd
echo 'anna:x:1000:' >>/etc/group
echo 'anna:100000:65536' | tee /etc/subuid >/etc/subgid
mkdir /home/anna && chown 1000:1000 /home/anna
exec /usr/bin/sh -ec "$1" 2>&1 # busybox's prefers its own programs
`;

interface MoreFiles {
  readonly programs?: readonly string[];
  readonly trees?: readonly string[];
}

/**
 * Runs a shell script as root of another host, and returns its output: a machine, whose kernel has cgroups of version 2, with
 * programs of this host and the user anna. There, `node /program.mjs` runs `module`, which is beside this one.
 */
export async function runOnOtherHost(module: string, script: string, more: MoreFiles = {}): Promise<string> {
  await using undo = new AsyncDisposableStack();
  const files = await mkdtemp(join(tmpdir(), 'podvm-other-host-'));
  undo.defer(() => rm(files, { recursive: true }));
  await copyPrograms([...usualPrograms, ...(more.programs ?? [])], files);
  for (const tree of more.trees ?? []) await cp(tree, join(files, tree), { recursive: true, verbatimSymlinks: true });
  await bundle(module, join(files, 'program.mjs'));
  const node = undo.use(await openNode());
  const sandbox = await node.sandboxes.run({ ...sandboxSpec, network: 'none' }, soon());
  const spec = {
    ...containerSpec,
    image: 'localhost/podvm/base:latest',
    command: ['/bin/sh', '-ec', setUp, 'sh', script],
    mounts: [
      { source: { kind: 'host', path: files, propagation: 'private' }, mountPath: '/opt/files', readOnly: true },
    ],
    security: { ...security, privileged: true, seccomp: { kind: 'unconfined' } },
  } as const;
  const container = await sandbox.createContainer(spec, soon());
  let said = '';
  const follower = container.follow(async ({ bytes }) => void (said += Buffer.from(bytes).toString()));
  await container.start(soon());
  const { exitCode } = await container.exited;
  await follower.ended;
  assert.equal(exitCode, 0, said);
  await undo.disposeAsync();
  assert.deepEqual(await node.leftovers(), []);
  return said;
}

/** Copies programs with their libraries, and the present Node. */
async function copyPrograms(programs: readonly string[], root: string): Promise<void> {
  const { stdout: found } = await run('sh', ['-ec', 'for each; do command -v "$each"; done', 'sh', ...programs]);
  const paths = found.trim().split('\n');
  const { stdout: needed } = await run('ldd', [...paths, process.execPath]);
  const libraries = [...needed.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path ?? '');
  const copy = async (from: string, to: string) => {
    const target = join(root, to.replace(/^\/(?:s?bin|lib)/, '/usr$&'));
    await mkdir(dirname(target), { recursive: true });
    await copyFile(from, target);
  };
  for (const path of new Set([...paths, ...libraries])) await copy(path, path);
  await copy(process.execPath, '/usr/bin/node');
}

async function bundle(module: string, outfile: string): Promise<void> {
  const entryPoints = [join(import.meta.dirname, module)];
  await build({ entryPoints, outfile, bundle: true, platform: 'node', format: 'esm', logLevel: 'silent' });
}

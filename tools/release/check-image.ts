import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { configSchema, manifestSchema } from '#image/oci.ts';
import type { Checking } from './checking.ts';
import { insideRoot, makeHostRoot } from './fresh-root.ts';
import { environmentOf, rootTraces, shell, use } from './try-form.ts';

const timeoutMs = 10 * 60_000;

/** The capabilities that the container of the node image needs, and no more: docs/install.md lists the same. */
const capabilities = [
  ...['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_KILL', 'CAP_MKNOD', 'CAP_NET_ADMIN'],
  ...['CAP_SETGID', 'CAP_SETPCAP', 'CAP_SETUID', 'CAP_SYS_ADMIN', 'CAP_SYS_CHROOT', 'CAP_SYS_PTRACE'],
];

/**
 * Runs the node image by crun in a fresh root, as a DaemonSet's container would run on a host: its own namespaces except
 * that of processes, and the root directory of the host. It installs, a pod runs on the host, and it uninstalls.
 */
export async function checkImage({ release, dist, work }: Checking): Promise<void> {
  const { repo, version, kernelVersion, signal } = release;
  const container = join(work, 'container');
  const archive = join(dist, `podvm-node-${version}.oci.tar`);
  const command = await unpack(archive, container, signal);
  for (const words of [['install'], ['uninstall', '--state']]) {
    const verb = words[0] ?? '';
    await mkdir(join(container, verb));
    await writeFile(join(container, verb, 'config.json'), JSON.stringify(containerSpec([...command, ...words])));
  }
  await mkdir(join(work, 'host'));
  const root = await makeHostRoot('debian 13', ['libstdc++6', 'crun'], join(work, 'host'), signal);
  const inside = insideRoot(root, { '/container': container, '/examples': join(repo, 'examples') });
  const lines = [
    rootTraces,
    'traces >/tmp/before',
    // Crun takes no mixture of both versions of cgroups; it makes none here.
    'in_container() { unshare --mount sh -c "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled run --bundle /container/$1 podvm-$1"; }',
    'in_container install',
    'in_container install 2>&1 | grep "installed already"',
    ...use('/opt/podvm/podvm', '/examples/hello.yaml', kernelVersion),
    'grep ExecStart=/opt/podvm/podvm /etc/systemd/system/podvm.service',
    'in_container uninstall',
    'in_container uninstall 2>&1 | grep "nothing to remove"',
    'traces >/tmp/after',
    'diff /tmp/before /tmp/after >&2',
  ];
  assert.match(await shell(lines, environmentOf({}), inside), /^Hello from hello, /m);
}

/** Unpacks the image's layers into `rootfs` of `directory`, after skopeo has checked all digests. Returns its entry point. */
async function unpack(archive: string, directory: string, signal: AbortSignal): Promise<readonly string[]> {
  const [copied, rootfs] = [join(directory, 'copied'), join(directory, 'rootfs')];
  await mkdir(rootfs, { recursive: true });
  await run('skopeo', ['copy', '--quiet', `oci-archive:${archive}`, `dir:${copied}`], { signal, timeoutMs });
  const json = async (name: string): Promise<unknown> => JSON.parse(await readFile(join(copied, name), 'utf8'));
  const hexOf = ({ digest }: { readonly digest: string }) => digest.slice('sha256:'.length);
  const manifest = v.parse(manifestSchema, await json('manifest.json'));
  for (const layer of manifest.layers) {
    await run('tar', ['--extract', '--file', join(copied, hexOf(layer)), '--directory', rootfs], { signal, timeoutMs });
  }
  const { config } = v.parse(configSchema, await json(hexOf(manifest.config)));
  await run('rm', ['-r', copied]);
  return config?.Entrypoint ?? [];
}

/** An OCI runtime's configuration of the container. */
const containerSpec = (args: readonly string[]) => ({
  ociVersion: '1.0.2',
  root: { path: '../rootfs', readonly: true },
  process: {
    cwd: '/',
    args,
    env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
    user: { uid: 0, gid: 0 },
    capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
  },
  mounts: [
    { destination: '/proc', type: 'proc', source: 'proc' },
    { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
    { destination: '/host', type: 'bind', source: '/', options: ['rbind', 'rprivate'] },
  ],
  linux: { namespaces: ['mount', 'network', 'uts', 'ipc', 'cgroup'].map((type) => ({ type })) },
});

import { mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/run.ts';

/** A directory of the host that a container shall see. */
export interface Bind {
  readonly destination: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** An OCI bundle below the directory, without a config yet: static busybox as `sh`, and the applets that scripts call. */
export async function makeBundle(directory: string, busybox: string, applets: readonly string[]): Promise<string> {
  const bundle = await mkdtemp(join(directory, 'podvm-bundle-'));
  const rootfs = join(bundle, 'rootfs');
  for (const name of ['bin', 'proc', 'sys', 'dev', 'tmp']) await mkdir(join(rootfs, name), { recursive: true });
  await run('cp', [busybox, join(rootfs, 'bin/sh')]);
  for (const applet of applets) await symlink('sh', join(rootfs, 'bin', applet));
  return bundle;
}

/** Has the bundle's container run the script. `process` is what its process has beside that (runtime-spec, config.md). */
export async function writeConfig(
  bundle: string,
  script: string,
  process: object,
  binds: readonly Bind[] = [],
): Promise<void> {
  const user = { uid: 0, gid: 0 };
  const config = {
    ociVersion: '1.0.2',
    process: { args: ['/bin/sh', '-c', script], env: ['PATH=/bin'], cwd: '/', user, ...process },
    root: { path: 'rootfs' },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      ...binds.map((bind) => ({ ...bind, type: 'bind' })),
    ],
    linux: { namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })) },
  };
  await writeFile(join(bundle, 'config.json'), JSON.stringify(config));
}

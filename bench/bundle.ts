import { mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';

/** A mount of a container (runtime-spec, config.md). */
export interface Mount {
  readonly destination: string;
  readonly type: 'bind' | 'proc' | 'tmpfs';
  readonly source: string;
  readonly options?: readonly string[];
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

/** Properties of a bundle's container that differ between bundles (runtime-spec, config.md). */
export interface BundleConfig {
  readonly args: readonly string[];
  /** Other fields of `process`. */
  readonly process?: object;
  readonly mounts?: readonly Mount[];
  /** Directory; default: the bundle's own. */
  readonly rootfs?: string;
  /** Path of its network namespace; default: a new one. */
  readonly netns?: string;
}

export async function writeConfig(bundle: string, options: BundleConfig): Promise<void> {
  const { args, mounts = [], rootfs = 'rootfs', netns } = options;
  const user = { uid: 0, gid: 0 };
  const config = {
    ociVersion: '1.0.2',
    process: { args, env: ['PATH=/usr/bin:/bin'], cwd: '/', user, ...options.process },
    root: { path: rootfs },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      ...mounts,
    ],
    linux: {
      namespaces: [
        ...['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
        { type: 'network', ...(netns === undefined ? {} : { path: netns }) },
      ],
    },
  };
  await writeFile(join(bundle, 'config.json'), JSON.stringify(config));
}

/** Returns the `process` field for exactly these capabilities. */
export function capabilitiesOf(names: readonly string[]): object {
  return { capabilities: { bounding: names, effective: names, permitted: names } };
}

/** Returns the arguments of a process that runs a script. */
export function shell(script: string): readonly string[] {
  return ['/bin/sh', '-c', script];
}

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { capabilitiesOf, makeBundle, shell, writeConfig } from '../../bench/bundle.ts';
import { crunCommands, firstWorking, type CrunCommand } from '../../bench/crun.ts';
import { fill, type HostVolumes, type MatrixMount, type World } from './volume-matrix.ts';

/** Applets of busybox in the root of a bundle. */
const applets = ['cat', 'mkdir', 'sleep'];
/** Capabilities for files that containerd gives a container by default. */
const capabilities = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'MKNOD', 'SETFCAP'].map((name) => `CAP_${name}`);

export interface PlainOptions {
  /** A directory to work in. */
  readonly directory: string;
  readonly busybox: string;
  /** The directory with the probe. */
  readonly programs: string;
  readonly volumes: HostVolumes;
}

/** Containers of crun on the host, with the same kinds of volumes bind-mounted. Disposing unmounts them. */
export async function openPlain(options: PlainOptions): Promise<World & AsyncDisposable> {
  const { directory, volumes } = options;
  await using undo = new AsyncDisposableStack();
  const [image, block] = [join(directory, 'image'), join(directory, 'block')];
  await fill(image);
  await mkdir(block);
  await run('mount', ['-o', 'loop', volumes.blockImage, block]);
  undo.defer(async () => void (await run('umount', [block])));

  const sourceOf = ({ mode, subPath }: MatrixMount) => {
    if (mode === 'share' || mode === 'block' || mode === 'image') {
      return join({ share: volumes.share, block, image }[mode], subPath ?? '');
    }
    return volumes.kept[mode][subPath === undefined ? 'path' : 'subPath'];
  };
  const bundle = async (script: string, mounts: readonly MatrixMount[]) => {
    const made = await makeBundle(directory, options.busybox, applets);
    const directories = [
      { at: '/bin2', source: options.programs, readOnly: true },
      ...mounts.map((one) => ({ ...one, source: sourceOf(one) })),
    ];
    const binds = directories.map(({ at, source, readOnly }) => ({
      destination: at,
      type: 'bind' as const,
      source,
      options: ['rbind', readOnly ? 'ro' : 'rw'],
    }));
    await writeConfig(made, { args: shell(script), process: capabilitiesOf(capabilities), mounts: binds });
    return made;
  };
  const command = await workingCommand(await bundle('exit 0', []));
  const owned = undo.move();
  return {
    run: async (script, mounts) => await runBundle(command, await bundle(script, mounts)),
    restart: async () => {}, // a pod's directories outlive its containers
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Returns the first way to call crun that works on this host. */
async function workingCommand(bundle: string): Promise<CrunCommand> {
  try {
    return await firstWorking(crunCommands, (command) => runBundle(command, bundle));
  } catch (cause) {
    throw new Error('crun (test/host-packages.txt) runs no container here', { cause });
  }
}

let containers = 0;

async function runBundle(command: CrunCommand, bundle: string): Promise<string> {
  const [program = '', ...args] = command(bundle, `podvm-matrix-${process.pid}-${(containers += 1)}`);
  return (await run(program, args)).stdout;
}

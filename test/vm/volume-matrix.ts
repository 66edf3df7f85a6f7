import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import type { KubeletDirectory } from './kubelet-directory.ts';

/** Modes that a container may write to; the others are always read-only. */
export const writableModes = ['share', 'block', 'scratch', 'tmpfs'] as const;
export const modes = [...writableModes, 'push', 'image'] as const;
export type Mode = (typeof modes)[number];

export interface MatrixMount {
  readonly mode: Mode;
  readonly at: string;
  readonly subPath?: 'sub' | 'sub/inside';
  readonly readOnly: boolean;
}

/** Runs a script in a new container with these mounts, and returns its output. The probe is `/bin2/volume-probe`. */
export type RunScript = (script: string, mounts: readonly MatrixMount[]) => Promise<string>;

/** One of the two sides of the comparison: containers of a pod, or plain ones. */
export interface World {
  readonly run: RunScript;
  /** Ends the pod and starts its next one. */
  restart(): Promise<void>;
}

/** Modes of volumes that a kubelet keeps on the host, where paths name them. */
type KeptMode = Extract<Mode, 'scratch' | 'tmpfs' | 'push'>;

/** Paths on the host of one world's volumes. */
export interface HostVolumes {
  readonly share: string;
  readonly blockImage: string;
  /** Paths of the volume and of the bind mount of its sub-path. */
  readonly kept: Readonly<Record<KeptMode, { readonly path: string; readonly subPath: string }>>;
  /** Changes them on the host. The shared and the pushed one come last: they tell a script that the update is done. */
  update(): Promise<void>;
}

/** First content of a volume that is filled from the host. */
export const content = { seed: 'seed\n', update: 'old\n' } as const;
const updated = { ...content, update: 'new\n' } as const;
/** Content of the file below `sub`; in a pushed volume, which has no directories, of the file itself. */
export const inside = 'inside\n';
const tmpfsMiB = 64;

/** Makes the volumes in a new directory of that name and in a kubelet's. */
export async function makeVolumes(directory: string, kubelet: KubeletDirectory): Promise<HostVolumes> {
  const name = basename(directory);
  const [share, blockImage] = [join(directory, 'share'), join(directory, 'block.img')];
  await fill(share);
  await writeFile(blockImage, '');
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', share, blockImage, '64M']);
  const push = (files: typeof content | typeof updated) =>
    kubelet.write('configmap', `${name}-push`, { ...files, inside });
  const paths = {
    scratch: await kubelet.emptyDir(`${name}-scratch`),
    tmpfs: await kubelet.emptyDirInMemory(`${name}-tmpfs`, tmpfsMiB),
    push: await push(content),
  };
  const keep = async (mode: KeptMode) => {
    const target = join(paths[mode], mode === 'push' ? '..data/inside' : 'sub');
    const subPath = await kubelet.subPath(`${name}-${mode}`, 'main', 0, target, mode === 'push');
    return { path: paths[mode], subPath };
  };
  return {
    share,
    blockImage,
    kept: { scratch: await keep('scratch'), tmpfs: await keep('tmpfs'), push: await keep('push') },
    async update() {
      for (const path of [paths.scratch, paths.tmpfs, share]) await writeFile(join(path, 'update'), updated.update);
      await push(updated);
    },
  };
}

export async function fill(directory: string): Promise<void> {
  await mkdir(join(directory, 'sub'), { recursive: true });
  for (const [name, text] of Object.entries(content)) await writeFile(join(directory, name), text);
  await writeFile(join(directory, 'sub/inside'), inside);
}

/** Mounts of all modes, each writable if possible, and by sub-path. */
const firstMounts: readonly MatrixMount[] = [
  ...writableModes.flatMap((mode): readonly MatrixMount[] => [
    { mode, at: `/rw/${mode}`, readOnly: false },
    { mode, at: `/sub/${mode}`, subPath: 'sub', readOnly: false },
  ]),
  { mode: 'push', at: '/ro/push', readOnly: true },
  { mode: 'push', at: '/sub/push/inside', subPath: 'sub/inside', readOnly: true }, // a key: it has no directories
  { mode: 'image', at: '/ro/image', readOnly: true },
  { mode: 'image', at: '/sub/image', subPath: 'sub', readOnly: true },
];

const firstScript = `
for m in ${writableModes.join(' ')}; do
  mkdir -p /rw/$m/probed
  for f in probed/seed kept; do echo seed > /rw/$m/$f; done
  echo inside > /rw/$m/sub/inside
  /bin2/volume-probe $m /rw/$m/probed
done
for m in push image; do /bin2/volume-probe $m /ro/$m; done
for m in ${modes.join(' ')}; do
  if [ "$(cd /sub/$m; echo * $(cat inside))" = 'inside inside' ]; then is=ok; else is=wrong; fi
  echo "$m subPath: $is"
done
look() {
  n=0; until [ "$(cat $2/update 2>/dev/null)" = new ] || [ $n = $3 ]; do n=$((n + 1)); sleep 0.2; done
  if [ $n = $3 ]; then is=unseen; else is=ok; fi
  echo "$1 update from the host: $is"
}
/bin2/volume-probe watch share /rw/share/update /rw/share/waiting
look share /rw/share 100
look push /ro/push 100
for m in scratch tmpfs; do look $m /rw/$m 1; done`;

/** Mounts of the next pod: every volume read-only; scratch and tmpfs also writable. */
const nextMounts: readonly MatrixMount[] = [
  ...modes.map((mode) => ({ mode, at: `/ro/${mode}`, readOnly: true })),
  { mode: 'scratch', at: '/rw/scratch', readOnly: false },
  { mode: 'tmpfs', at: '/rw/tmpfs', readOnly: false },
];

const nextScript = `
again() {
  if [ "$(cat $2 2>/dev/null)" = seed ]; then is=kept; else is=gone; fi
  echo "$1 pod restart: $is"
}
for m in ${writableModes.join(' ')}; do again $m /ro/$m/kept; done
for m in push image; do again $m /ro/$m/seed; done
for m in scratch tmpfs; do echo seed > /rw/$m/seed; done
for m in ${writableModes.join(' ')}; do /bin2/volume-probe "$m read-only" /ro/$m; done`;

/** Parses rows (`share fcntl`) with their outcomes; any other line is a failure of the script. */
function rowsOf(output: string): readonly (readonly [string, string])[] {
  return output
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [, row, outcome] = /^([\w -]+): (\w+)$/.exec(line) ?? [];
      if (row === undefined || outcome === undefined) throw new Error(`not a row: ${line}\nin\n${output}`);
      return [row, outcome] as const;
    });
}

/** Returns the matrix of this world. */
export async function fillIn(world: World, volumes: HostVolumes): Promise<ReadonlyMap<string, string>> {
  const over = new AbortController();
  const running = world.run(firstScript, firstMounts).finally(() => over.abort());
  const changing = whenThere(join(volumes.share, 'waiting'), over.signal).then(() => volumes.update());
  await Promise.allSettled([running, changing]); // the volumes are removed when one has failed
  const first = rowsOf(await running);
  await changing;
  await world.restart();
  return new Map([...first, ...rowsOf(await world.run(nextScript, nextMounts))]);
}

async function whenThere(path: string, isOver: AbortSignal): Promise<void> {
  while (!(await isThere(path))) {
    if (isOver.aborted) throw new Error(`the script ended without ${path}`);
    await delay(20);
  }
}

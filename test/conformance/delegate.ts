import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { buildContainerd } from '../containerd/build-containerd.ts';
import { bridgeName, startContainerd } from '../containerd/containerd-node.ts';
import { pauseImage } from '../containerd/pod.ts';
import { sysroot } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';

/** A containerd with runc, in the network of the host, for the setting `delegate`. */
export interface DelegateNode extends AsyncDisposable {
  /** Settings of a podvm that make it the delegate. */
  readonly settings: Readonly<Record<string, string>>;
}

export interface DelegateOptions {
  /** Directory in which programs are kept. */
  readonly cache: string;
  /** Directory for all that it keeps; made here. */
  readonly work: string;
  readonly crictl: string;
  /** See `ContainerdOptions`. */
  readonly registries?: string;
  /** Namespaces of pods that it may run; default: all. */
  readonly namespaces?: string;
  /** Layouts of images that it has, beside the one of a pod's own process. */
  readonly layouts?: readonly string[];
  readonly signal: AbortSignal;
}

/** At its end, its pods are removed. */
export async function startDelegate(options: DelegateOptions): Promise<DelegateNode> {
  const { cache, work, crictl, registries, namespaces = '*', layouts = [], signal } = options;
  await using undo = new AsyncDisposableStack();
  const programs = await buildContainerd(cache, signal);
  await mkdir(work);
  undo.defer(async () => void (await run('ip', ['link', 'delete', bridgeName], { okCodes: 'any' })));
  const containerd = undo.use(
    await startContainerd({ programs, work, pauseImage, ...(registries === undefined ? {} : { registries }) }),
  );
  const rmp = ['--config', '/dev/null', '-t', '60s', '-r', containerd.endpoint, 'rmp', '--force', '--all'];
  undo.defer(async () => void (await run(crictl, rmp, { okCodes: 'any' })));
  const layout = join(work, 'pause');
  const busybox = await readFile(join(await sysroot(), 'usr/bin/busybox'));
  const layers = [[{ name: 'bin/sleep', content: busybox, mode: 0o755 }]];
  await writeLayout(layout, [{ name: pauseImage, layers, config: { config: { Cmd: ['/bin/sleep', '1000000'] } } }]);
  for (const each of [layout, ...layouts]) {
    await run('tar', ['-C', each, '-cf', join(work, 'image.tar'), '.']);
    await containerd.ctr('images', 'import', join(work, 'image.tar'));
  }
  const owned = undo.move();
  return {
    settings: { PODVM_DELEGATE: containerd.endpoint, PODVM_DELEGATE_NAMESPACES: namespaces },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

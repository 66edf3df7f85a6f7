import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/run.ts';
import { buildContainerd } from '../containerd/build-containerd.ts';
import { bridgeName, startContainerd } from '../containerd/containerd-node.ts';
import { pauseImage } from '../containerd/pod.ts';
import { sysroot } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';

/** A containerd with runc, in the network of the host, for the setting `delegate`. */
export interface DelegateNode extends AsyncDisposable {
  /** What makes it the delegate of a podvm. */
  readonly settings: Readonly<Record<string, string>>;
}

export interface DelegateOptions {
  /** Directory in which programs are kept. */
  readonly cache: string;
  /** Directory for all that it keeps; made here. */
  readonly work: string;
  readonly crictl: string;
  /** As `ContainerdOptions`. */
  readonly registries: string;
  readonly signal: AbortSignal;
}

/** At its end, its pods are removed. */
export async function startDelegate(options: DelegateOptions): Promise<DelegateNode> {
  const { cache, work, crictl, registries, signal } = options;
  await using undo = new AsyncDisposableStack();
  const programs = await buildContainerd(cache, signal);
  await mkdir(work);
  undo.defer(async () => void (await run('ip', ['link', 'delete', bridgeName], { okCodes: 'any' })));
  const containerd = undo.use(await startContainerd({ programs, work, pauseImage, registries }));
  const rmp = ['--config', '/dev/null', '-t', '60s', '-r', containerd.endpoint, 'rmp', '--force', '--all'];
  undo.defer(async () => void (await run(crictl, rmp, { okCodes: 'any' })));
  const layout = join(work, 'pause');
  const busybox = await readFile(join(await sysroot(), 'usr/bin/busybox'));
  const layers = [[{ name: 'bin/sleep', content: busybox, mode: 0o755 }]];
  await writeLayout(layout, [{ name: pauseImage, layers, config: { config: { Cmd: ['/bin/sleep', '1000000'] } } }]);
  await run('tar', ['-C', layout, '-cf', join(work, 'pause.tar'), '.']);
  await containerd.ctr('images', 'import', join(work, 'pause.tar'));
  const owned = undo.move();
  return {
    settings: { PODVM_DELEGATE: containerd.endpoint, PODVM_DELEGATE_NAMESPACES: '*' }, // critest makes up namespaces
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

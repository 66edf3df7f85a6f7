import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serveFakeDelegate } from './fake-delegate.ts';
import { openFakeNode, type FakeNodeOptions } from './fake-node.ts';

/** A node with a delegate for kube-system. */
export async function openDelegateNode(options: Omit<FakeNodeOptions, 'delegate'> = {}) {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-delegate-'));
  undo.defer(() => rm(directory, { recursive: true }));
  const socketPath = join(directory, 'containerd.sock');
  const delegate = undo.use(await serveFakeDelegate(socketPath));
  const node = undo.use(await openFakeNode({ ...options, delegate: { socketPath, namespaces: ['kube-system'] } }));
  const owned = undo.move();
  return { node, delegate, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

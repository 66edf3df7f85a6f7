import { type Terminal, fixLine, write } from './terminal.ts';

/** A machine that runs, and whose podvm has ended. */
export interface Orphan {
  /** Namespace of the pod; empty: a pooled machine without a pod. */
  readonly namespace: string;
  readonly name: string;
  /** Pid of its VMM. */
  readonly pid: number;
  /** Time of creation in RFC 3339. */
  readonly createdAt: string;
}

export async function warnOfOrphans(orphans: readonly Orphan[], { stderr }: Terminal): Promise<void> {
  if (orphans.length === 0) return;
  const which = orphans.length === 1 ? 'a machine runs' : `${orphans.length} machines run`;
  const fix =
    'Start `podvm daemon`, which takes the pods of a kubelet over and ends the others, or end all by `podvm stop --orphaned`.';
  await write(stderr, `podvm: warning: ${which} here that no podvm serves\n${fixLine(fix)}\n`);
}

export async function stopOrphans(ended: readonly Orphan[], { stdout }: Terminal): Promise<void> {
  if (ended.length === 0) return await write(stdout, 'no machine is orphaned\n');
  await write(stdout, ended.map((orphan) => `${nameOf(orphan)} stopped\n`).join(''));
}

export const nameOf = ({ namespace, name, pid }: Orphan): string =>
  name === '' ? `machine ${pid}` : `${namespace}/${name}`;

import { type Terminal, fixLine, write } from './terminal.ts';

/** A machine that runs, and whose podvm was killed. */
export interface Orphan {
  /** Of the pod; empty: a machine that waited for one. */
  readonly namespace: string;
  readonly name: string;
  /** Of its VMM. */
  readonly pid: number;
  /** RFC 3339. */
  readonly createdAt: string;
}

export async function warnOfOrphans(orphans: readonly Orphan[], { stderr }: Terminal): Promise<void> {
  if (orphans.length === 0) return;
  const which = orphans.length === 1 ? 'a machine runs' : `${orphans.length} machines run`;
  const fix = 'End what is orphaned by `podvm stop --orphaned`; the next `podvm run` or `podvm daemon` does it, too.';
  await write(stderr, `podvm: warning: ${which} here whose podvm was killed\n${fixLine(fix)}\n`);
}

export async function stopOrphans(ended: readonly Orphan[], { stdout }: Terminal): Promise<void> {
  if (ended.length === 0) return await write(stdout, 'nothing is orphaned\n');
  await write(stdout, ended.map((orphan) => `${nameOf(orphan)} stopped\n`).join(''));
}

export const nameOf = ({ namespace, name, pid }: Orphan): string =>
  name === '' ? `machine ${pid}` : `${namespace}/${name}`;

import type { PodSummary } from '#api/pods.ts';
import { type Terminal, fixLine, write } from '../terminal/terminal.ts';

/** A running machine that no podvm serves. */
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
  const which = orphans.length === 1 ? 'a machine is' : `${orphans.length} machines are`;
  const fix =
    'Start `podvm daemon`: it takes over the pods that outlive a podvm, and ends the others. Or end all of them with `podvm stop --orphaned`.';
  await write(
    stderr,
    `podvm: warning: ${which} running, but no podvm serves ${orphans.length === 1 ? 'it' : 'them'}\n${fixLine(fix)}\n`,
  );
}

/** Says why the running podvm can only end these pods. */
export async function warnOfLeft(pods: readonly PodSummary[], { stderr }: Terminal): Promise<void> {
  const left = pods.filter(({ reason }) => reason === 'LeftAlone');
  if (left.length === 0) return;
  const fix = 'Run the podvm that made it, or end the pod with `podvm stop`.';
  const lines = left.map(({ message }) => `podvm: warning: ${message}\n`);
  await write(stderr, `${lines.join('')}${fixLine(fix)}\n`);
}

export async function stopOrphans(ended: readonly Orphan[], { stdout }: Terminal): Promise<void> {
  if (ended.length === 0) return await write(stdout, 'no machine is orphaned\n');
  await write(stdout, ended.map((orphan) => `${nameOf(orphan)} stopped\n`).join(''));
}

export const nameOf = ({ namespace, name, pid }: Orphan): string =>
  name === '' ? `machine ${pid}` : `${namespace}/${name}`;

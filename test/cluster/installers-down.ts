/** Nodes without an installer that is ready: the most at a time, once all had one, and how many at last. */
export interface Down {
  readonly most: number;
  readonly now: number;
  /** All that ever had one, sorted. */
  readonly nodes: readonly string[];
}

/** Follows changes of installers: lines of `TYPE|POD|NODE|READY|DELETED`, in their order. */
export function mostDown(lines: readonly string[]): Down {
  const pods = new Map<string, { readonly node: string; readonly isReady: boolean }>();
  const nodes = new Set<string>();
  let [most, now] = [0, 0];
  for (const line of lines) {
    const [type, pod = '', node = '', ready, deleted] = line.split('|');
    if (deleted === undefined) continue;
    if (type === 'DELETED') pods.delete(pod);
    else pods.set(pod, { node, isReady: ready === 'True' && deleted === '' });
    const up = new Set([...pods.values()].flatMap((each) => (each.isReady ? [each.node] : [])));
    const before = nodes.size;
    for (const each of up) nodes.add(each);
    now = nodes.size - up.size;
    if (nodes.size === before) most = Math.max(most, now);
  }
  return { most, now, nodes: [...nodes].sort() };
}

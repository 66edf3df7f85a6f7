import type { PodSummary } from './pods.ts';

/** Why an action on a pod is refused, and what to do instead. */
export interface Refusal {
  /** Form: `Cannot stop web: the pod belongs to containerd`. */
  readonly message: string;
  readonly fix: string;
}

type Foreign = 'kubelet' | 'containerd';

/** Command to use at the owner, by the action that podvm refuses. */
const instead = {
  kubelet: {
    stop: 'Delete it with `kubectl delete pod`; without a cluster, `crictl stopp`. `podvm drain` ends all pods of the node.',
    remove: 'Delete it with `kubectl delete pod`; without a cluster, `crictl rmp`.',
    logs: 'Use `kubectl logs`, or `crictl logs` without a cluster.',
    debug: 'Use `kubectl debug`; `podvm exec` runs commands of its own image.',
    other: 'Use `kubectl`, or `crictl` without a cluster.',
  },
  containerd: {
    stop: 'Delete it with `kubectl delete pod`; without a cluster, use `crictl stopp` at containerd. `podvm drain` ends all pods of the node.',
    remove: 'Delete it with `kubectl delete pod`; without a cluster, use `crictl rmp` at containerd.',
    logs: 'Use `kubectl logs`; without a cluster, use `crictl logs` at containerd.',
    debug: 'Use `kubectl debug`; `podvm exec` runs commands of its own image.',
    other: 'Use `kubectl`, or `crictl` at containerd without a cluster.',
  },
} as const;
export type OwnersCommand = keyof (typeof instead)[Foreign];

/** Refusal of an action that only the pod's owner may take. `verb` completes `Cannot`. */
export function ownersAction(name: string, owner: Foreign, verb: string, kind: OwnersCommand = 'other'): Refusal {
  const whose = owner === 'kubelet' ? 'a kubelet or another client of CRI' : owner;
  return { message: `Cannot ${verb} ${name}: the pod belongs to ${whose}`, fix: instead[owner][kind] };
}

/** Refusal of what only a running pod can do. `verb` completes `Cannot`. */
export const hasEnded = (name: string, verb: string): Refusal => ({
  message: `Cannot ${verb} ${name}: the pod has ended`,
  fix: `Run it again with \`podvm start ${name}\`; \`podvm logs ${name}\` prints what it wrote.`,
});

/** Refusal to remove a pod that runs. */
export const stillRuns = (name: string): Refusal => ({
  message: `Cannot remove ${name}: the pod runs`,
  fix: `Stop it first with \`podvm stop ${name}\`, or kill and remove it with \`podvm rm -f ${name}\`.`,
});

/** What a state of a pod allows. An action of another program's pod names its command there. */
interface ActionRow {
  /** Completes `Cannot`. */
  readonly verb: string;
  /** Absent: also possible for a pod of this owner. */
  readonly foreign?: Partial<Record<Foreign, OwnersCommand>>;
  readonly running?: (name: string) => Refusal;
  readonly ended?: (name: string) => Refusal;
}

const onlyOwn = (kind: OwnersCommand) => ({ kubelet: kind, containerd: kind });

/** All actions on one pod, with the states in which the node refuses them. */
export const podActions = {
  stop: { verb: 'stop', foreign: onlyOwn('stop'), ended: (name) => hasEnded(name, 'stop') },
  restart: { verb: 'restart', foreign: onlyOwn('other') },
  start: {
    verb: 'start',
    foreign: onlyOwn('other'),
    running: (name) => ({
      message: `Cannot start ${name}: the pod runs`,
      fix: `Run it again with \`podvm restart ${name}\`.`,
    }),
  },
  remove: { verb: 'remove', foreign: onlyOwn('remove'), running: stillRuns },
  killAndRemove: {
    verb: 'kill and remove',
    foreign: onlyOwn('remove'),
    ended: (name) => hasEnded(name, 'kill and remove'),
  },
  exec: { verb: 'run a command in', ended: (name) => hasEnded(name, 'run a command in') },
  resize: { verb: 'resize', foreign: onlyOwn('other'), ended: (name) => hasEnded(name, 'resize') },
  manifest: { verb: 'show the YAML of', foreign: onlyOwn('other') },
  readFiles: { verb: 'read files of', ended: (name) => hasEnded(name, 'read files of') },
  portForward: { verb: 'connect to', ended: (name) => hasEnded(name, 'connect to') },
  logs: { verb: 'read logs of', foreign: { containerd: 'logs' } },
  console: { verb: 'show the console of', ended: (name) => hasEnded(name, 'show the console of') },
  examine: { verb: 'examine', ended: (name) => hasEnded(name, 'examine') },
} as const satisfies Record<string, ActionRow>;
export type PodAction = keyof typeof podActions;

/** Why the node would refuse the action; undefined if it would not. */
export function refusalOf(
  action: PodAction,
  { name, owner = 'podvm', endedAt }: Pick<PodSummary, 'name' | 'owner' | 'endedAt'>,
): Refusal | undefined {
  const { verb, foreign, running, ended }: ActionRow = podActions[action];
  if (owner === 'kubelet' || owner === 'containerd') {
    const kind = foreign?.[owner];
    return kind === undefined ? undefined : ownersAction(name, owner, verb, kind);
  }
  return endedAt === undefined ? running?.(name) : ended?.(name);
}

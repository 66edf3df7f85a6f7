import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { ownersAction, type OwnersCommand, type Refusal } from '#api/pod-actions.ts';
import type { ContainerSummary, PodDetails, PodSummary } from '#api/pods.ts';
import type { Container, Sandbox, Sandboxes } from '#sandbox/sandbox.ts';
import { leftFix } from '#sandbox/recovery/record.ts';
import { sandboxOf } from './describe-pod.ts';

/** Program that decides about a pod. */
export type Owner = 'podvm' | 'kubelet' | 'containerd';

/** A pod of another program: its newest sandbox. */
export interface ForeignPod {
  readonly namespace: string;
  readonly name: string;
  /** `podvm` only for a pod that is left alone. */
  readonly owner: Owner;
  readonly sandbox: Sandbox;
}

const owners = { cri: 'kubelet', containerd: 'containerd', podvm: 'podvm' } as const;
export const ownerOf = ({ keptFor = 'cri' }: Sandbox['spec']): Owner => owners[keptFor];

/**
 * Pods that a kubelet, another client of CRI, or containerd has made, and pods of podvm itself that are left alone; of
 * several sandboxes, the newest.
 */
export function foreignPods(sandboxes: Pick<Sandboxes, 'list'>): readonly ForeignPod[] {
  const pods = new Map<string, ForeignPod>();
  for (const sandbox of sandboxes.list()) {
    const { spec } = sandbox;
    if (spec.isKept !== true || (spec.keptFor === 'podvm' && sandbox.status.leftAlone === undefined)) continue;
    const [namespace, name] = [printable(spec.namespace), printable(spec.name)];
    const key = `${namespace}/${name}`;
    const other = pods.get(key)?.sandbox.status;
    if (other !== undefined && !isNewer(sandbox.status, other)) continue;
    pods.set(key, { namespace, name, owner: ownerOf(spec), sandbox });
  }
  return [...pods.values()];
}

type Dated = Pick<Sandbox['status'], 'state' | 'createdAt'>;
const isNewer = (one: Dated, other: Dated): boolean =>
  one.state === other.state ? one.createdAt >= other.createdAt : one.state === 'ready';

export function foreignSummary({ namespace, name, owner, sandbox }: ForeignPod): PodSummary {
  const { state, createdAt, addresses, failure, leftAlone } = sandbox.status;
  const newest = newestContainers(sandbox);
  const ready = newest.filter(({ status }) => status.state === 'running').length;
  const phases: Readonly<Record<string, string>> = { ready: 'Running', stopped: 'Stopped', failed: 'Failed' };
  return {
    ...{ namespace, name, owner },
    phase: phases[state] ?? state,
    ready: `${ready}/${newest.length}`,
    restarts: newest.reduce((sum, { status }) => sum + status.attempt, 0),
    createdAt: createdAt.toISOString(),
    addresses: [...addresses],
    labels: { ...sandbox.spec.labels },
    images: newest.map(({ status }) => printable(status.image)),
    ...(failure === undefined ? {} : { reason: 'SandboxFailed' }),
    ...(leftAlone === undefined ? {} : { reason: 'LeftAlone', message: printable(leftAlone) }),
  };
}

export async function foreignDetails(pod: ForeignPod, signal: AbortSignal): Promise<PodDetails> {
  const { sandbox } = pod;
  const { uid, labels } = sandbox.spec;
  return {
    ...foreignSummary(pod),
    uid,
    labels: { ...labels },
    containers: newestContainers(sandbox).map(containerSummary),
    events: [],
    ...(await sandboxOf(sandbox, signal)),
  };
}

/** The newest container of each name, oldest name first. */
export function newestContainers({ containers }: Sandbox): readonly Container[] {
  return [...new Map(containers.map((container) => [container.status.name, container])).values()];
}

function containerSummary({ status }: Container): ContainerSummary {
  const { name, image, state, attempt, exit, startedAt } = status;
  const words = [exit?.why, exit?.message].filter((word) => word !== undefined).map((word) => printable(word));
  return {
    name: printable(name),
    kind: 'main',
    image: printable(image),
    state: state === 'running' ? 'running' : state === 'exited' ? 'terminated' : 'waiting',
    ready: state === 'running',
    restartCount: attempt,
    ...(exit === undefined ? {} : { reason: exit.reason, exitCode: exit.exitCode }),
    ...(words.length === 0 ? {} : { message: words.join('; ') }),
    ...(startedAt === undefined ? {} : { startedAt: startedAt.toISOString() }),
  };
}

/** Error for an action that only the pod's owner may take, or only another podvm. `verb` completes `Cannot`. */
export function notOurs({ name, owner, sandbox }: ForeignPod, verb: string, kind?: OwnersCommand): PodvmError {
  const { leftAlone } = sandbox.status;
  if (leftAlone === undefined && owner !== 'podvm') return refused(ownersAction(name, owner, verb, kind));
  return refused({ message: `Cannot ${verb} ${name}: ${printable(leftAlone ?? 'it has ended')}`, fix: leftFix(name) });
}

/** Error for an action that the table of actions refuses. */
export const refused = ({ message, fix }: Refusal): PodvmError =>
  new PodvmError('failedPrecondition', message, { fix });

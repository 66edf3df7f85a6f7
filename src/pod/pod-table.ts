import { PodvmError } from '#base/errors.ts';
import type { RunningPod } from './pods.ts';
import { nearest } from './schema/unknown-fields.ts';

/** The pods of this process by namespace and name, which makes names unique. */
export interface PodTable {
  /** Adds a pod, which disposing removes. Errors: `alreadyExists` when a pod of that name exists. */
  add(pod: RunningPod): Disposable;
  has(namespace: string, name: string): boolean;
  list(): readonly RunningPod[];
  /** Finds a pod. Without `namespace` the name must be unique. Errors: `notFound`, `invalid` (ambiguous). */
  find(namespace: string | undefined, name: string): RunningPod;
}

export function createPodTable(): PodTable {
  const pods = new Map<string, RunningPod>();
  const key = (namespace: string, name: string) => `${namespace}/${name}`;
  return {
    add(pod) {
      const at = key(pod.namespace, pod.name);
      if (pods.has(at))
        throw new PodvmError('alreadyExists', `Cannot run pod ${at}: a pod of that name is running`, {
          fix: `Stop it with \`podvm stop ${at}\`, or rename the new pod.`,
        });
      pods.set(at, pod);
      return {
        [Symbol.dispose]: () => {
          if (pods.get(at) === pod) pods.delete(at);
        },
      };
    },
    has: (namespace, name) => pods.has(key(namespace, name)),
    list: () => [...pods.values()],
    find: (namespace, name) => findByName([...pods.values()], namespace, name),
  };
}

interface Named {
  readonly namespace: string;
  readonly name: string;
}

/** Words of kubectl before a pod's name, as in `pod/web`. */
const kindWords: readonly string[] = ['pod', 'pods', 'po'];
/** Its words before the name of an object that has pods. */
const ownerWords: readonly string[] = [
  ...['deployment', 'deploy', 'statefulset', 'sts', 'daemonset', 'ds', 'replicaset', 'rs', 'job', 'cronjob', 'cj'],
  ...['service', 'svc'],
];

/**
 * Finds one of `pods`. Without `namespace`, or with a word of kubectl in its place, the name must be unique. A namespace that has
 * the name of such a word is meant as one. Errors: `notFound`, `invalid` (ambiguous).
 */
export function findByName<P extends Named>(pods: readonly P[], namespace: string | undefined, name: string): P {
  const key = (pod: Named) => `${pod.namespace}/${pod.name}`;
  const found = pods.filter((pod) => pod.name === name && (namespace === undefined || pod.namespace === namespace));
  const [first, second] = found;
  const isNamespace = pods.some((pod) => pod.namespace === namespace);
  if (!isNamespace && kindWords.includes(namespace ?? '')) return findByName(pods, undefined, name);
  if (first === undefined) {
    const isOwner = !isNamespace && ownerWords.includes(namespace ?? '');
    throw new PodvmError('notFound', `Cannot find pod ${namespace === undefined ? name : `${namespace}/${name}`}`, {
      fix: isOwner ? 'Name one of its pods: `podvm ps -o wide` lists them with their labels.' : seePods(pods, name),
    });
  }
  if (second !== undefined) {
    const places = found.map(key).join(', ');
    throw new PodvmError('invalid', `Cannot find pod ${name}: the name is ambiguous, found ${places}`, {
      fix: 'Name it as NAMESPACE/NAME.',
    });
  }
  return first;
}

function seePods(pods: readonly Named[], name: string): string {
  const close = nearest(
    name,
    pods.map((pod) => pod.name),
  );
  return `${close === undefined ? 'See' : `Did you mean ${close}? See`} \`podvm ps -a\` for the pods.`;
}

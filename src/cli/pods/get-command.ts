import * as v from 'valibot';
import { type ObjectKind, objectKinds, type ObjectSummary, objectSummarySchema } from '#api/objects.ts';
import { PodvmError } from '#base/errors.ts';
import type { Client } from '../client.ts';
import { type ListForm, type Listing, printList, watchList } from '../terminal/listing.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { type Choice, chooser } from './label-selector.ts';

export interface GetOptions extends ListForm, Choice {
  /** Kinds as kubectl has them, between commas. */
  readonly kinds: string | undefined;
  readonly name: string | undefined;
}

/** Short names of kubectl; its long ones are the kinds in lower case, also in the plural. */
const shortNames = new Map<string, ObjectKind>(
  Object.entries({
    deploy: 'Deployment',
    sts: 'StatefulSet',
    ds: 'DaemonSet',
    rs: 'ReplicaSet',
    cj: 'CronJob',
    svc: 'Service',
    pvc: 'PersistentVolumeClaim',
  } as const),
);

/** What podvm has as commands of their own, or in pods. */
const elsewhere = new Map(
  Object.entries({
    pod: 'List pods alone: `podvm get pods`, or `podvm ps`.',
    event: 'Print events with `podvm events`.',
    image: 'List images with `podvm images`.',
    node: 'Describe this node with `podvm info`.',
    configmap: 'It is kept with the pods that use it: `podvm inspect POD`.',
    namespace: 'A namespace needs no object: `podvm ps -n NAMESPACE` lists its pods.',
    secret: 'It is kept with the pods that use it, in memory.',
  }),
);
const elsewhereByShortName = new Map([
  ['po', 'pod'],
  ['ev', 'event'],
  ['no', 'node'],
  ['cm', 'configmap'],
  ['ns', 'namespace'],
]);

/** Lists objects of files besides pods. Errors: `invalid`, and those of the node. */
export async function getCommand(
  client: Client,
  { kinds, name, ...options }: GetOptions,
  terminal: Terminal,
  until: AbortSignal,
): Promise<void> {
  const wanted = kinds === undefined || kinds === 'all' ? objectKinds : kinds.split(',').map(kindOf);
  const isChosen = chooser(options);
  const find = async () => {
    const found = await client.get('/v1/objects', v.array(objectSummarySchema));
    return found.filter((object) => wanted.includes(object.kind) && isChosen(object) && isNamed(object, name));
  };
  const listing: Listing<ObjectSummary> = { find, ...columns };
  const objects = await printList(listing, options, terminal);
  if (name !== undefined && objects.length === 0 && options.watch !== true) {
    throw new PodvmError('notFound', `Cannot find ${kinds} ${name}`, { fix: 'See `podvm get` for what there is.' });
  }
  await watchList(listing, options, objects, terminal, until);
}

function kindOf(word: string): ObjectKind {
  const lower = word.toLowerCase();
  const found =
    shortNames.get(lower) ?? objectKinds.find((kind) => [kind, `${kind}s`].some((it) => it.toLowerCase() === lower));
  if (found !== undefined) return found;
  const singular = elsewhereByShortName.get(lower) ?? lower.replace(/s$/, '');
  throw new PodvmError('invalid', `Cannot list ${JSON.stringify(word)}`, {
    fix: elsewhere.get(singular) ?? `Name some of ${objectKinds.join(', ')}, or leave it out for all.`,
  });
}

const isNamed = (object: ObjectSummary, name: string | undefined): boolean =>
  name === undefined || object.name === name || `${object.namespace}/${object.name}` === name;

const columns: Omit<Listing<ObjectSummary>, 'find'> = {
  head: (isWide) => ['NAMESPACE', 'KIND', 'NAME', 'STATUS', ...(isWide ? ['PODS', 'LABELS'] : [])],
  rows: ({ namespace, kind, name, status, pods, labels }, isWide) => {
    const words = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    return [[namespace, kind, name, status, ...(isWide ? [pods.join(',') || '-', words.join(',') || '-'] : [])]];
  },
  names: ({ kind, namespace, name }) => [`${kind} ${namespace}/${name}`],
};

import { type RefusedFlag, refusedNamespace } from './refusals.ts';

const format = { why: 'output has forms of its own', fix: 'Use -o, such as -o json with jq.' };
const ofDocker: readonly RefusedFlag[] = [
  { flags: '--format [value]', ...format },
  { flags: '--no-trunc', why: 'nothing is cut', fix: 'Leave it out.' },
];
const filter = { flags: '-f, --filter [value]', why: 'lists are not filtered' };
const images: readonly RefusedFlag[] = [
  ...ofDocker,
  { ...filter, fix: 'Leave it out; `podvm image prune` removes images without a name.' },
  { flags: '--digests', why: 'the wide form has them', fix: 'Use -o wide.' },
];
const ofKubectl: readonly RefusedFlag[] = [
  { flags: '--show-labels', why: 'the wide form has them', fix: 'Use -o wide.' },
  { flags: '--sort-by [value]', why: 'lists have one order', fix: 'Use -o json with jq.' },
  { flags: '--no-headers', why: 'a table has its heads', fix: 'Use -o name, or `tail -n +2`.' },
  { flags: '--field-selector [value]', why: 'lists are chosen from by labels', fix: 'Use -l, or -o json with jq.' },
];
const usage: readonly RefusedFlag[] = [
  ...ofDocker,
  { flags: '-a, --all', why: 'a pod that has ended uses nothing', fix: 'Leave it out.' },
  { flags: '--containers', why: 'usage is that of pods', fix: 'See `podvm inspect POD` for that of containers.' },
  { flags: '--sort-by [value]', why: 'there is one way to write it', fix: 'Use --sort cpu, memory or name.' },
];
const attached = { why: 'a start prints no output', fix: 'Follow it afterwards: `podvm attach POD`.' };
const all = { flags: '-a, --all' };
const stopSignal: RefusedFlag = {
  flags: '-s, --signal [value]',
  why: "the image's own signal is used",
  fix: 'Send another with `podvm kill -s SIGNAL POD`.',
};
const stopTime: RefusedFlag = { flags: '--time [value]', why: 'there is one way to write it', fix: 'Use -t.' };
const files: readonly RefusedFlag[] = [
  { ...refusedNamespace, why: 'objects name their namespace', fix: 'Write metadata.namespace into the file.' },
  { flags: '--dry-run [value]', why: 'there is a command for it', fix: 'Use `podvm diff -f FILE`.' },
];

/** Flags of docker, podman and kubectl by the command; `run` and `exec` have tables of their own. */
export const foreignFlags: ReadonlyMap<string, readonly RefusedFlag[]> = new Map(
  Object.entries({
    ...Object.fromEntries(
      ['kill', 'pause', 'unpause', 'rename', 'attach', 'cp', 'port-forward', 'describe', 'console'].map((name) => [
        name,
        [refusedNamespace],
      ]),
    ),
    start: [{ flags: '-a, --attach', ...attached }, { flags: '-i, --interactive', ...attached }, refusedNamespace],
    stop: [stopSignal, stopTime, refusedNamespace],
    restart: [stopSignal, stopTime, refusedNamespace],
    rm: [
      { ...all, why: 'pods are removed by name', fix: 'Name them: `podvm rm $(podvm ps -aq)`.' },
      {
        flags: '-l, --selector [value]',
        why: 'pods are removed by name',
        fix: 'Name them: `$(podvm ps -aq -l LABELS)`.',
      },
      {
        flags: '-v, --volumes',
        why: "a pod's own volumes end with it",
        fix: 'Remove those of claims with `podvm volume rm`.',
      },
      refusedNamespace,
    ],
    wait: [
      { flags: '--for [value]', why: 'it waits for the end of pods', fix: 'Follow the state with `podvm ps -w`.' },
      refusedNamespace,
    ],
    logs: [{ ...refusedNamespace, flags: '--namespace [value]' }],
    inspect: [{ flags: '-f, --format [value]', ...format }, refusedNamespace],
    ps: [...ofDocker, ...ofKubectl, { ...filter, fix: 'Use -l for labels, or -n for a namespace.' }],
    get: ofKubectl,
    top: usage,
    stats: usage,
    events: [
      { flags: '--since [value]', why: 'all that is kept is printed', fix: 'Use -f, or -o json with jq.' },
      { flags: '--until [value]', why: 'all that is kept is printed', fix: 'Use -o json with jq.' },
      { flags: '--filter [value]', why: 'events are chosen by pod', fix: 'Name a pod, or use -l or -n.' },
      { flags: '--for [value]', why: 'there is one way to write it', fix: 'Name the pod: `podvm events POD`.' },
      { flags: '--format [value]', ...format },
    ],
    info: [{ flags: '-f, --format [value]', ...format }],
    version: [
      { flags: '-f, --format [value]', ...format },
      { flags: '--client', why: 'there is one program', fix: 'Leave it out.' },
    ],
    login: [
      {
        flags: '-p, --password [value]',
        why: 'other users of this host would see it',
        fix: 'Use --password-stdin: `podvm login -u NAME --password-stdin REGISTRY <FILE`.',
      },
    ],
    images,
    'image ls': images,
    'image prune': [{ flags: '--filter [value]', why: 'images are not filtered', fix: 'Remove them by name.' }],
    'image inspect': [{ flags: '-f, --format [value]', ...format }],
    'image rm': [
      { flags: '-f, --force', why: 'an image that a pod uses stays', fix: 'Remove the pod first: `podvm rm -f POD`.' },
      { ...all, why: 'images are removed by name', fix: 'Use `podvm image prune -a`.' },
    ],
    'image pull': [
      {
        flags: '--platform [value]',
        why: 'images are chosen for the processor of this host',
        fix: 'Leave it out.',
      },
    ],
    'volume ls': [...ofDocker, { ...filter, fix: 'Use -n for a namespace.' }],
    'volume rm': [
      { flags: '-f, --force', why: 'a volume that a pod has stays', fix: 'Remove the pod first: `podvm rm -f POD`.' },
    ],
    'system df': [{ flags: '-v, --verbose', why: 'the list is whole', fix: 'Leave it out.' }],
    'system prune': [
      { flags: '--volumes', why: 'volumes are removed by name', fix: 'Use `podvm volume rm VOLUME`.' },
      { flags: '--filter [value]', why: 'nothing is filtered', fix: 'Leave it out.' },
    ],
    apply: files,
    diff: files,
    delete: [
      ...files,
      { flags: '--ignore-not-found', why: 'what is absent is no error', fix: 'Leave it out.' },
      { flags: '--grace-period [value]', why: 'each pod has its own', fix: 'Use `podvm stop -t SECONDS POD` before.' },
    ],
  }),
);

/** Advice for a wrong command line, by the command. */
export const ownAdvice: ReadonlyMap<string, string> = new Map(
  Object.entries({
    apply: 'Name files with -f. For a kustomization: `kubectl kustomize DIR | podvm apply -f -`.',
    delete: 'End what a file describes with `podvm delete -f FILE`, and one pod with `podvm rm -f POD`.',
    describe: 'Name pods: `podvm describe POD`, or NAMESPACE/POD.',
    rm: 'Name pods. All that have ended: `podvm rm $(podvm ps -aq)`; with -f also those that run.',
    diff: 'Name files with -f: it shows what `podvm apply -f FILE` would change.',
    top: 'Name pods, or none for all: `podvm top POD`.',
    stats: 'Name pods, or none for all: `podvm stats POD`.',
    inspect: 'Name pods: `podvm inspect POD`. For an image: `podvm image inspect IMAGE`.',
    volume: 'Volumes are made by the PersistentVolumeClaims of files: `podvm apply -f FILE`.',
  }),
);

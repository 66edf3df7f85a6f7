import { type RefusedFlag, refusedNamespace } from './refusals.ts';

const format = { why: 'output has forms of its own', fix: 'Use -o, such as -o json with jq.' };
const lists: readonly RefusedFlag[] = [
  { flags: '--format [value]', ...format },
  { flags: '--no-trunc', why: 'nothing is cut', fix: 'Leave it out.' },
];
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
      ['start', 'kill', 'pause', 'unpause', 'rename', 'attach', 'cp', 'port-forward', 'describe', 'console'].map(
        (name) => [name, [refusedNamespace]],
      ),
    ),
    stop: [stopSignal, stopTime, refusedNamespace],
    restart: [stopSignal, stopTime, refusedNamespace],
    rm: [
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
    ps: [
      ...lists,
      { flags: '-f, --filter [value]', why: 'lists are chosen from by labels', fix: 'Use -l, or -n for a namespace.' },
    ],
    images: lists,
    apply: files,
    diff: files,
    delete: files,
  }),
);

/** Advice for a wrong command line, by the command. */
export const ownAdvice: ReadonlyMap<string, string> = new Map(
  Object.entries({
    apply: 'Name files with -f. For a kustomization: `kubectl kustomize DIR | podvm apply -f -`.',
    delete: 'End what a file describes with `podvm delete -f FILE`, and one pod with `podvm rm -f POD`.',
    describe: 'Name one pod: `podvm describe POD`, or NAMESPACE/POD.',
    volume: 'Volumes are made by the PersistentVolumeClaims of files: `podvm apply -f FILE`.',
  }),
);

import { Option } from 'commander';
import * as v from 'valibot';
import { podNameSchema } from '#api/pods.ts';
import { cpuQuantity, memoryQuantity } from './amounts.ts';
import { entriesOfFile, type Environment, type EnvVariable, variablesOf } from './container-environment.ts';
import { wrongFlag } from './flag-error.ts';
import { literal } from './literal.ts';
import { mountedByMount, mountedByVolume } from './mounts.ts';
import { portsOf } from './published-ports.ts';

/**
 * Fields that a flag adds to the Pod. When parts are merged, lists are joined, and a later value replaces an earlier
 * one.
 */
export interface PodPart {
  readonly metadata?: object;
  readonly spec?: object;
  /** The Pod's one container. */
  readonly container?: object;
  readonly env?: readonly EnvVariable[];
  /** Paths of the host that are checked before the Pod is made. */
  readonly mustExist?: readonly string[];
  /** Images that it names. */
  readonly images?: readonly string[];
}

/** Input of the translation besides the flags. */
export interface FlagContext {
  readonly image: string;
  /** The words after the image. */
  readonly words: readonly string[];
  readonly environment: Environment;
  /** Texts of the env files by their names. */
  readonly envFiles: ReadonlyMap<string, string>;
}

/** A flag of `podvm run IMAGE`: its syntax and its meaning in a Pod. */
export interface PodFlag {
  readonly option: Option;
  readonly partOf: (value: unknown, context: FlagContext) => PodPart;
}

type Meaning<V> = (value: V, context: FlagContext, flag: string) => PodPart;

function row<V>(option: Option, meaning: Meaning<V>): PodFlag {
  // SAFE: commander passes a value of the kind that the option below was made for
  return { option, partOf: (value, context) => meaning(value as V, context, option.long ?? option.flags) };
}

const given = (flags: string, description: string, part: PodPart) => row(new Option(flags, description), () => part);
const single = (flags: string, description: string, meaning: Meaning<string>) =>
  row(new Option(flags, description), meaning);
const several = (flags: string, description: string, meaning: Meaning<readonly string[]>) =>
  row(new Option(flags, `${description}; can be repeated`).argParser(collect), meaning);

/** An option that can be repeated. */
export const collect = (value: string, before: readonly string[] = []): readonly string[] => [...before, value];

const container = (part: object): PodPart => ({ container: part });
const security = (part: object): PodPart => container({ securityContext: part });

/** Names of docker may have capitals and underscores, those of pods may not. */
function podName(flag: string, name: string): string {
  const isName = (text: string) => v.safeParse(podNameSchema, text).success;
  if (isName(name)) return name;
  const similar = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9.-]+/g, '-')
    .replaceAll(/^[.-]+|[.-]+$/g, '');
  const instead = isName(similar) ? similar : 'web-1';
  throw wrongFlag(flag, name, 'a pod has a name of a-z, 0-9, - and .', `Use ${flag} ${instead}.`);
}

/** The table: every flag that a Pod can express. */
export const podFlags: readonly PodFlag[] = [
  single('--name <name>', 'name of the pod; default: made from the image', (name, _, flag) => ({
    metadata: { name: podName(flag, name), generateName: undefined },
  })),
  given('-i, --interactive', "pass standard input on to the container's", container({ stdin: true, stdinOnce: true })),
  given('-t, --tty', 'give the container a terminal', container({ tty: true })),
  several('--env-file <file>', 'read variables from a file of NAME=VALUE lines', (files, context, flag) => ({
    env: files.flatMap((file) =>
      variablesOf(flag, entriesOfFile(context.envFiles.get(file) ?? ''), context.environment),
    ),
  })),
  several('-e, --env <name=value>', "set a variable; NAME alone takes podvm's own", (entries, context, flag) => ({
    env: variablesOf(flag, entries, context.environment),
  })),
  several('-p, --publish <[ip:]host:container>', 'publish a port, or a range, on the host', (ports, _, flag) =>
    container({ ports: portsOf(flag, ports) }),
  ),
  several('-v, --volume <path:path[:ro]>', 'mount a path of the host, or a new volume', (values, _, flag) =>
    mounted(values.map((value, at) => mountedByVolume(flag, value, `volume-${at}`))),
  ),
  several('--mount <settings>', 'mount, such as type=tmpfs,target=/run', (values, _, flag) => {
    const all = values.map((value, at) => mountedByMount(flag, value, `mount-${at}`));
    return {
      ...mounted(all),
      mustExist: all.flatMap(({ volume: { hostPath } }) => hostPath?.path ?? []),
      images: all.flatMap(({ volume: { image } }) => image?.reference ?? []),
    };
  }),
  single('-w, --workdir <path>', 'working directory', (workingDir) => container({ workingDir })),
  single('-u, --user <uid[:gid]>', 'user and group by number', (user, _, flag) => security(userOf(user, flag))),
  single('--entrypoint <program>', "replace the image's entrypoint; '' removes it", (program, { words }, flag) => {
    if (program !== '') return container({ command: [literal(program)] });
    if (words.length > 0) return container({ command: words.map(literal), args: undefined });
    throw wrongFlag(flag, "''", 'nothing is left to run', 'Write the command after the image.');
  }),
  single('--cpus <number>', 'cores at most, such as 1.5', (text, _, flag) => {
    const cpu = cpuQuantity(text);
    if (cpu === undefined) throw wrongFlag(flag, text, 'it is not a number of cores', 'Give a number such as 1.5.');
    return container({ resources: { limits: { cpu } } });
  }),
  single('-m, --memory <size>', 'memory at most, such as 512m or 2g', (text, _, flag) => {
    const memory = memoryQuantity(text);
    if (memory === undefined) throw wrongFlag(flag, text, 'it is not a size', 'Give a size such as 512m or 2g.');
    return container({ resources: { limits: { memory } } });
  }),
  row<string>(
    new Option('--restart <policy>', 'when to restart the container: no, on-failure, always').default('no'),
    (policy, _, flag) => ({ spec: { restartPolicy: restartPolicyOf(policy, flag) } }),
  ),
  given('--read-only', 'mount the root file system read-only', security({ readOnlyRootFilesystem: true })),
  several('--cap-add <capability>', 'add a capability, such as NET_ADMIN or ALL', (names) =>
    security({ capabilities: { add: capabilities(names) } }),
  ),
  several('--cap-drop <capability>', 'drop a capability', (names) =>
    security({ capabilities: { drop: capabilities(names) } }),
  ),
  given('--privileged', 'give the container all rights in its machine', security({ privileged: true })),
  single('--hostname <name>', 'host name', (hostname) => ({ spec: { hostname } })),
  several('--add-host <name:ip>', 'add a line to /etc/hosts', (values, _, flag) => ({
    spec: { hostAliases: hostAliasesOf(values, flag) },
  })),
  several('--dns <ip>', 'name server to use instead', (nameservers) => ({
    spec: { dnsPolicy: 'None', dnsConfig: { nameservers } },
  })),
  several('-l, --label <key=value>', 'label of the pod', (pairs, _, flag) => ({
    metadata: { labels: recordOf(pairs, flag) },
  })),
  several('--annotation <key=value>', 'annotation of the pod', (pairs, _, flag) => ({
    metadata: { annotations: recordOf(pairs, flag) },
  })),
  row<string>(
    new Option('--pull <when>', 'when to pull the image').choices(['always', 'missing', 'never']).default('missing'),
    (when, { image }) => container({ imagePullPolicy: pullPolicyOf(when, image) }),
  ),
];

function mounted(all: readonly ReturnType<typeof mountedByVolume>[]): PodPart {
  return {
    spec: { volumes: all.map(({ volume }) => volume) },
    container: { volumeMounts: all.map(({ mount }) => mount) },
  };
}

function userOf(user: string, flag: string) {
  const [, uid, gid] = /^(\d+)(?::(\d+))?$/.exec(user) ?? [];
  if (uid === undefined) {
    const fix = 'Give UID or UID:GID; `id` in the container prints them.';
    throw wrongFlag(flag, user, 'a Pod names users and groups by number', fix);
  }
  return { runAsUser: Number(uid), ...(gid === undefined ? {} : { runAsGroup: Number(gid) }) };
}

const restartPolicies: Readonly<Record<string, string>> = {
  no: 'Never',
  'on-failure': 'OnFailure',
  always: 'Always',
  'unless-stopped': 'Always', // a pod that was stopped is gone
  // kubectl's words
  Never: 'Never',
  OnFailure: 'OnFailure',
  Always: 'Always',
};

function restartPolicyOf(policy: string, flag: string): string {
  const found = Object.hasOwn(restartPolicies, policy) ? restartPolicies[policy] : undefined;
  if (found !== undefined) return found;
  const why = /^on-failure:\d+$/.test(policy) ? 'a Pod does not count its restarts' : 'there is no such policy';
  throw wrongFlag(flag, policy, why, 'Give no, on-failure or always.');
}

/** Splits names at commas, as Podman does, and accepts lower case, as both Docker and Podman do. */
const capabilities = (names: readonly string[]): string[] =>
  names.flatMap((name) => name.split(',')).map((name) => name.toUpperCase().replace(/^CAP_/, ''));

function hostAliasesOf(values: readonly string[], flag: string) {
  const aliases = new Map<string, string[]>();
  for (const value of values) {
    const [, name = '', ip = ''] = /^([^:=]+)[:=]\[?(.+?)\]?$/.exec(value) ?? [];
    if (name === '') throw wrongFlag(flag, value, 'it is not a name and an address', 'Write it as NAME:IP.');
    if (ip === 'host-gateway') {
      const fix = "Give the host's address in the pod's network: `ip route` in the container prints it.";
      throw wrongFlag(flag, value, 'a Pod names the address', fix);
    }
    aliases.set(ip, [...(aliases.get(ip) ?? []), name]);
  }
  return [...aliases].map(([ip, hostnames]) => ({ ip, hostnames }));
}

function recordOf(pairs: readonly string[], flag: string): Readonly<Record<string, string>> {
  const entries = pairs.map((pair) => {
    const [key = '', ...value] = pair.split('=');
    if (key === '') throw wrongFlag(flag, pair, 'the key is missing', 'Write it as KEY=VALUE.');
    return [key, value.join('=')] as const;
  });
  return Object.fromEntries(entries);
}

/**
 * Converts `--pull`. The default is Docker's `missing`; an image of the host `localhost` has no registry to pull it
 * from.
 */
function pullPolicyOf(when: string, image: string): 'Always' | 'IfNotPresent' | 'Never' {
  if (when === 'always') return 'Always';
  return when === 'never' || image.startsWith('localhost/') ? 'Never' : 'IfNotPresent';
}

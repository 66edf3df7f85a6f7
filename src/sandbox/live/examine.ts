import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import { isRunning, isStopped, type ProcessIdentity } from '#host/process/process-identity.ts';
import { run } from '#host/process/run.ts';
import { within } from '#host/wait.ts';
import type { Link } from '#link/link.ts';
import { portsNotHeld } from '#network/ports/held-ports.ts';
import { type FileServerFigures, meanSecondsBetween, readFileServerFigures } from '#storage/request-figures.ts';
import type { Result } from '#wire/messages.ts';
import type { ExaminedMounts } from '#wire/examination.ts';
import type { GuestContainer } from '../container/guest-container.ts';
import type { LiveParts } from './live-parts.ts';
import { dnsQuestion } from './dns-question.ts';
import type {
  Examination,
  ExaminedContainer,
  ExaminedMount,
  GatewayOutcome,
  GuestView,
  Seen,
  Space,
} from '../figures/examination.ts';
import { defaultGateways, hasAnsweredArp, localAddresses, parsePodResolvConf, recentPressure } from './guest-files.ts';

/** Time in which the agent must answer at all, and in which all its answers must be there, in `ms`. */
const answerMs = 5_000;
const guestMs = 15_000;
/** Time for an answer from the network, and from a file system of the host, in `ms`. */
const networkMs = 2_500;
const spaceMs = 2_000;
/** Least time in which the requests of a file server are looked at, in `ms`. */
const lookMs = 1_000;
/** The most mounts of a container, and containers, that are looked at. */
const maxMounts = 64;
const maxContainers = 16;
const discardPort = 9;
const dnsPort = 53;

type Guest = Pick<Link, 'call'>;
type Site = Pick<LiveParts, 'id' | 'spec' | 'guest' | 'parts' | 'surroundings'>;

/** Examines a sandbox from outside and, if its agent answers in time, from inside. Never rejects. */
export async function examine(
  { id, spec, guest, parts, surroundings }: Site,
  containers: readonly GuestContainer[],
  signal: AbortSignal,
): Promise<Examination> {
  using deadline = openDeadline(guestMs, signal);
  const running = containers.filter(({ status }) => status.state === 'running').slice(0, maxContainers);
  const before = readServers(running);
  const outside = Promise.all([
    portsNotHeld(spec.hostPorts, `${spec.namespace}/${spec.name}`),
    seen(() => parts.network.dropped(id, deadline.signal)),
    spacesOf(running),
  ]);
  const answer = await seen(() => ping(guest, signal));
  const ask = async <T>(look: () => Promise<T>): Promise<Seen<T>> => ('why' in answer ? answer : await seen(look));
  const [view, figures, tables, [lostPorts, dropped, spaces]] = await Promise.all([
    ask(() => viewOf(guest, surroundings.nowMs, deadline.signal)),
    ask(() => guest.call('metrics', {}, deadline.signal)),
    Promise.all(
      running.map(async ({ id: containerId }) => ({
        mounts: await ask(() => guest.call('examineMounts', { containerId }, deadline.signal)),
        figures: await ask(() => guest.call('metrics', { containerId }, deadline.signal)),
      })),
    ),
    outside,
  ]);
  const examined = await Promise.all(
    running.map(async (container, at): Promise<ExaminedContainer> => {
      const { mounts = unasked, figures: its = unasked } = tables[at] ?? {};
      return {
        name: container.spec.name,
        oomKills: 'why' in its ? its : { value: its.value.oomKills },
        layer: 'why' in its ? its : { value: its.value.layer },
        mounts:
          'why' in mounts ? mounts : { value: await mountsOf(container, mounts.value.mounts, spaces, await before) },
      };
    }),
  );
  return { answer, guest: view, figures, containers: examined, lostPorts, dropped };
}

const unasked = { why: 'not asked' };

async function seen<T>(look: () => Promise<T>): Promise<Seen<T>> {
  try {
    return { value: await look() };
  } catch (error) {
    return { why: error instanceof Error ? error.message : messageOf(error) }; // without the call as its cause
  }
}

async function ping(guest: Guest, signal: AbortSignal): Promise<number> {
  using deadline = openDeadline(answerMs, signal);
  const sentMs = performance.now();
  await guest.call('ping', {}, deadline.signal);
  return performance.now() - sentMs;
}

async function viewOf(guest: Guest, nowMs: () => number, signal: AbortSignal): Promise<GuestView> {
  const first = await guest.call('examine', {}, signal);
  const { nameservers, searches } = parsePodResolvConf(textOf(first.files.resolvConf));
  const gateways = defaultGateways(textOf(first.files.route), textOf(first.files.ipv6Route));
  const [answers, reached] = await Promise.all([
    Promise.all(nameservers.map((address) => askServer(guest, address, searches, signal))),
    Promise.all(gateways.map((address) => touch(guest, address, signal))),
  ]);
  // Again, for what the gateways have answered meanwhile.
  const sentMs = nowMs();
  const last = await guest.call('examine', {}, signal);
  const receivedMs = nowMs();
  const arp = textOf(last.files.arp);
  return {
    clockAheadMs: last.realtimeMs - (sentMs + receivedMs) / 2,
    clockErrorMs: Math.abs(receivedMs - sentMs) / 2,
    addresses: localAddresses(textOf(last.files.fibTrie), textOf(last.files.ifInet6)),
    gateways: gateways.map((address, at) => {
      const hasAnswered = hasAnsweredArp(arp, address);
      const outcome = hasAnswered === undefined ? (reached[at] ?? 'quiet') : hasAnswered ? 'reached' : 'unreachable';
      return { address, outcome };
    }),
    nameservers: answers,
    pressure: {
      cpu: recentPressure(textOf(last.files.cpuPressure)),
      memory: recentPressure(textOf(last.files.memoryPressure)),
      io: recentPressure(textOf(last.files.ioPressure)),
    },
    volumes: last.volumes.map(({ name, ...space }) => ({ name, space })),
  };
}

const textOf = (file: Result<'examine'>['files']['arp']): string =>
  Buffer.from(file ?? '', 'base64').toString('latin1');

async function askServer(
  guest: Guest,
  address: string,
  searches: readonly string[],
  signal: AbortSignal,
): Promise<GuestView['nameservers'][number]> {
  const cluster = searches.find((search) => search.startsWith('svc.'));
  const question = dnsQuestion(cluster === undefined ? '' : `kubernetes.default.${cluster}`);
  const data = question.bytes.toString('base64');
  const sentMs = performance.now();
  const answer = await seen(async () => {
    const told = await guest.call('ask', { address, port: dnsPort, data, timeoutMs: networkMs }, signal);
    return { outcome: question.outcomeOf(Buffer.from(told.data, 'base64')), ms: performance.now() - sentMs };
  });
  return { address, name: question.name, answer };
}

/** Sends a datagram that no program answers, so that the guest's kernel looks for the gateway. */
async function touch(guest: Guest, address: string, signal: AbortSignal): Promise<GatewayOutcome> {
  const result = await seen(() =>
    guest.call('ask', { address, port: discardPort, data: '', timeoutMs: networkMs }, signal),
  );
  if ('value' in result || result.why.endsWith(': ECONNREFUSED')) return 'reached';
  return /: E(HOST|NET)UNREACH$/.test(result.why) ? 'unreachable' : 'quiet';
}

/** Space of the host's file systems that are served to the guest, by path. */
async function spacesOf(containers: readonly GuestContainer[]): Promise<ReadonlyMap<string, Seen<Space>>> {
  const paths = new Set(
    containers.flatMap(({ sources }) => sources.flatMap(({ path, server }) => (server && path) ?? [])),
  );
  const found = [...paths].slice(0, maxMounts).map(async (path) => [path, await seen(() => spaceAt(path))] as const);
  return new Map(await Promise.all(found));
}

/** Asks by a process of its own: a call for a file system that hangs would hold a thread of this one forever. */
async function spaceAt(path: string): Promise<Space> {
  const args = ['--file-system', '--format=%S %b %a %c %d', '--', path];
  const result = await within(run('stat', args, { timeoutMs: spaceMs }), { ms: 2 * spaceMs });
  if (result === undefined) throw new Error(`${path} does not answer`);
  const [blockBytes = 0, blocks = 0, free = 0, totalInodes = 0, freeInodes = 0] = result.stdout.split(' ').map(Number);
  return { totalBytes: blocks * blockBytes, freeBytes: free * blockBytes, totalInodes, freeInodes };
}

/** Joins the guest's mounts with the host's knowledge of them, which has the same order. */
async function mountsOf(
  { status, sources }: GuestContainer,
  inGuest: ExaminedMounts,
  spaces: ReadonlyMap<string, Seen<Space>>,
  before: ReadonlyMap<number, ServerReading>,
): Promise<readonly ExaminedMount[]> {
  const known = status.mounts.slice(0, maxMounts).flatMap((mount, at) => {
    const told = inGuest[at];
    return told === undefined ? [] : [{ ...mount, ...told }];
  });
  return await Promise.all(
    known.map(async ({ mountPath, mode, volume, isWantedReadOnly, found }): Promise<ExaminedMount> => {
      const { path, server } = sources.find(({ guest }) => guest.volume === volume) ?? {};
      return {
        ...{ mountPath, mode, volume, isWantedReadOnly },
        inGuest: found === undefined ? 'absent' : found.isReadOnly ? 'readOnly' : 'writable',
        ...(server === undefined || path === undefined
          ? {}
          : {
              served: {
                path,
                ...(await serverState(server, before.get(server.pid))),
                space: spaces.get(path) ?? unasked,
              },
            }),
      };
    }),
  );
}

type ServerState = Pick<NonNullable<ExaminedMount['served']>, 'server' | 'oldestSeconds' | 'meanSeconds'>;

interface ServerReading {
  readonly atMs: number;
  readonly figures: FileServerFigures;
}

/** The first figures of the file servers of containers, by pid. */
async function readServers(containers: readonly GuestContainer[]): Promise<ReadonlyMap<number, ServerReading>> {
  const pids = new Set(containers.flatMap(({ sources }) => sources.flatMap(({ server }) => server?.pid ?? [])));
  const read = async (pid: number): Promise<readonly (readonly [number, ServerReading])[]> => {
    const figures = await readFileServerFigures(pid, process.hrtime.bigint());
    return figures === undefined ? [] : [[pid, { atMs: performance.now(), figures }]];
  };
  return new Map((await Promise.all([...pids].map(read))).flat());
}

async function serverState(server: ProcessIdentity, before: ServerReading | undefined): Promise<ServerState> {
  if (!(await isRunning(server))) return { server: 'gone', oldestSeconds: 0, meanSeconds: 0 };
  if (before !== undefined) await delay(Math.max(0, before.atMs + lookMs - performance.now()));
  const figures = await readFileServerFigures(server.pid, process.hrtime.bigint());
  return {
    server: isStopped(server) ? 'stopped' : 'running',
    oldestSeconds: figures?.oldestSeconds ?? 0,
    meanSeconds: figures === undefined || before === undefined ? 0 : meanSecondsBetween(before.figures, figures),
  };
}

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { type GuestText, printable } from '#base/guest-text.ts';
import type { Log } from '#host/log/log.ts';
import { within } from '#host/wait.ts';
import { shareOomScore } from '#host/process/oom-score.ts';
import type { Link } from '#link/link.ts';
import type { FileAccess, FileServer } from '#storage/file-server.ts';
import { openHostSource, type HostSource } from '#storage/host-source.ts';
import { maxPorts, type Machine } from '#vm/driver.ts';
import type { AttachedSource, FoundSource, GuestSource, HeldSource, HostMode, HostMount, Loss } from './host-mode.ts';
import type { Parts } from '../parts.ts';
import { endIfStopped, watchStopped } from './stopped-server.ts';

export interface ShareModeParts {
  readonly sandboxId: string;
  /** Whether the pod has a user namespace. */
  readonly hasOwnUsers: boolean;
  readonly machine: Pick<Machine, 'attachPort' | 'detachPort' | 'confine' | 'record' | 'exited'>;
  readonly guest: Pick<Link, 'call'>;
  readonly files: Parts['files'];
  /** Directory for the logs of its servers. */
  readonly logDirectory: string;
  readonly log: Log;
}

interface ShareSite extends ShareModeParts {
  /** Servers of the sandbox that ended before their volumes. */
  readonly lost: { count: number };
}

/** Deadline for the guest's unmount, which writes back dirty data, in `ms`. */
const removeTimeoutMs = 25_000;
const detachTimeoutMs = 10_000;
/** Time to wait until the end of a server or of its machine is noticed, in `ms`. */
const lastWordsMs = 1_000;

/**
 * A directory or file of the node shared by host and guest: a file server on the host, a virtio-serial port of the machine,
 * and a FUSE file system in the guest. They are attached in this order and removed in reverse.
 */
export function createShareMode(given: ShareModeParts): HostMode {
  const parts = { ...given, lost: { count: 0 } };
  return {
    adopt: (held) => adopt(held, parts),
    async find(mount, _signal) {
      const { path, propagation } = mount.source;
      if (propagation === 'bidirectional') {
        throw new PodvmError(
          'unsupported',
          `Cannot mount ${path} at ${mount.mountPath}: what a container mounts in its machine cannot appear on the host`,
          { fix: 'Use the propagation None or HostToContainer.' },
        );
      }
      const source = await openHostSource(path);
      try {
        if (source.kind === 'file' && mount.subPath !== undefined) {
          throw new PodvmError(
            'invalid',
            `Cannot mount ${mount.subPath} of ${path}: that is a file, got a subPath in it`,
            { fix: 'Leave out the subPath, or mount the directory of the file.' },
          );
        }
        return foundSource(source, mount, await accessOf(mount, source), parts);
      } catch (error) {
        await source[Symbol.asyncDispose]();
        throw error;
      }
    },
  };
}

interface Access {
  readonly onHost: FileAccess;
  /** Whether the guest's own mount is read-only, too; not if something below it must stay writable. */
  readonly isReadOnlyInGuest: boolean;
}

async function accessOf({ readOnly, recursiveReadOnly, source }: HostMount, found: HostSource): Promise<Access> {
  if (!readOnly) return { onHost: 'readWrite', isReadOnlyInGuest: false };
  if (recursiveReadOnly !== false) return { onHost: 'recursiveReadOnly', isReadOnlyInGuest: true };
  const mayHaveSubmounts = source.propagation === 'hostToContainer' || (await found.hasSubmounts());
  return { onHost: 'readOnly', isReadOnlyInGuest: !mayHaveSubmounts };
}

function foundSource(
  source: HostSource,
  { source: { propagation } }: HostMount,
  access: Access,
  parts: ShareSite,
): FoundSource {
  return {
    mode: 'share',
    key: [propagation, access.onHost, access.isReadOnlyInGuest, source.identity].join(' '),
    attach: (volume, signal) =>
      attach(
        { source, volume, access, propagation: propagation === 'hostToContainer' ? 'slave' : 'private' },
        parts,
        signal,
      ),
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}

interface Order {
  readonly source: HostSource;
  readonly volume: string;
  readonly access: Access;
  readonly propagation: 'private' | 'slave';
}

async function attach(order: Order, parts: ShareSite, signal: AbortSignal): Promise<AttachedSource> {
  const { source, volume, access, propagation } = order;
  const { machine, guest, sandboxId, hasOwnUsers: mapsUsers, log } = parts;
  const port = portOf(volume);
  await using undo = new AsyncDisposableStack();
  const channel = await machine.attachPort(port, signal).catch((error: unknown) => {
    throw tooMany(source, error);
  });
  undo.defer(() => detach(port, parts));
  const identity = { owner: sandboxId, name: port, logPath: logPathOf(port, parts) };
  const confine = confineIn(parts);
  const request = { channel, source, access: access.onHost, propagation, mapsUsers, confine, ...identity };
  const server = undo.use(await parts.files.serve(request, signal));
  await shareOomScore(machine.record.pid, server.record.pid).catch((error: unknown) => {
    log.warn('a file server is killed earlier than its machine should be', {
      path: source.path,
      why: messageOf(error),
    });
  });
  undo.defer(() => removeFromGuest(volume, parts));
  try {
    await guest.call('createVolume', { name: volume, kind: 'share', port }, signal);
  } catch (error) {
    throw await explain(source, server, error);
  }
  const { file } = server.record;
  const guestSource: GuestSource = {
    volume,
    readOnly: access.isReadOnlyInGuest,
    ...(file === undefined ? {} : { subPath: file }),
  };
  const loss = watchServer(server, source.path, parts);
  undo.defer(() => loss.end());
  return attachedBy(guestSource, { server, loss }, undo.move());
}

/** In the order of `attach`. A share whose server has ended is lost from the beginning. */
async function adopt(held: HeldSource, parts: ShareSite): Promise<AttachedSource | undefined> {
  const { guest, server: record, path = '', mode } = held;
  if (mode !== 'share' || record === undefined) return undefined;
  const port = portOf(guest.volume);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => detach(port, parts));
  const adoption = { record, owner: parts.sandboxId, logPath: logPathOf(port, parts), confine: confineIn(parts) };
  const server = await parts.files.adopt(adoption);
  if (server !== undefined) undo.use(server);
  undo.defer(() => removeFromGuest(guest.volume, parts));
  const loss = watchServer(server ?? { record, ended: Promise.resolve([]) }, path, parts);
  undo.defer(() => loss.end());
  return attachedBy(guest, { server: { record }, loss }, undo.move());
}

const portOf = (volume: string) => volume.replaceAll('_', '-');

const logPathOf = (port: string, { logDirectory }: ShareModeParts) => join(logDirectory, `${port}.log`);

const confineIn =
  ({ machine }: ShareModeParts) =>
  (pid: number, memoryBytes: number) =>
    machine.confine(pid, memoryBytes);

interface WatchedServer extends Loss {
  /** Stops the watch: the server may end from now on. */
  end(): void;
}

/** Reports the end of a server, until `end` is called. */
function watchServer(
  server: Pick<FileServer, 'record' | 'ended'>,
  path: string,
  { log, lost, machine }: ShareSite,
): WatchedServer {
  const listeners = new Set<(why: string) => void>();
  const why = `the file server of ${path} has ended`;
  let state: 'served' | 'lost' | 'wanted' = 'served';
  const isWanted = () => state === 'wanted';
  let isTold = false;
  const stopped = watchStopped(server.record, path, log);
  const tell = async (tail: readonly GuestText[]): Promise<void> => {
    stopped[Symbol.dispose]();
    if (state === 'wanted') return;
    state = 'lost';
    // A server ends with its machine, too.
    if ((await within(machine.exited, { ms: lastWordsMs })) !== undefined || isWanted()) return;
    lost.count += 1;
    const said = tail.map((line) => printable(line)).join(' | ');
    log.warn('a file server has ended before its volume', { path, count: lost.count, tail: said });
    isTold = true;
    for (const listener of listeners) listener(why);
  };
  server.ended.then(tell).catch((error: unknown) => log.error('the end of a file server is not told', error, { path }));
  return {
    get isLost() {
      return state === 'lost';
    },
    onLost(listener) {
      if (isTold) listener(why);
      else listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    async endIfStopped() {
      // The next container must find it lost.
      if (await endIfStopped(server.record, path, log)) await server.ended;
    },
    end: () => {
      state = 'wanted';
      stopped[Symbol.dispose]();
    },
  };
}

function attachedBy(
  guest: GuestSource,
  { server, loss }: { readonly server: Pick<FileServer, 'record'>; readonly loss: Loss },
  owned: AsyncDisposableStack,
): AttachedSource {
  return { guest, server: server.record, loss, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function tooMany({ path }: HostSource, error: unknown): unknown {
  if (kindOf(error) !== 'exhausted') return error;
  return new PodvmError(
    'exhausted',
    `Cannot share ${path} with the pod's machine: it has ${maxPorts} volumes of the host already`,
    { cause: error, fix: 'Mount a common parent directory once, with a subPath for each.' },
  );
}

/** A server that could not start looks to its client like one that has left. */
async function explain({ path }: HostSource, server: FileServer, error: unknown): Promise<unknown> {
  if (kindOf(error) !== 'unavailable') return error;
  const late = delay<readonly GuestText[]>(lastWordsMs, [], { ref: false });
  const tail = await Promise.race([server.ended, late]);
  return new PodvmError(
    'unavailable',
    `Cannot share ${path}: ${[messageOf(error), ...tail.slice(-1).map((line) => printable(line))].join(': ')}`,
    {
      cause: error,
      tail,
    },
  );
}

/** Never fails for a guest that does not answer: the host's part is removed next. */
async function removeFromGuest(volume: string, { guest, log }: ShareModeParts): Promise<void> {
  try {
    await guest.call('removeVolume', { name: volume }, AbortSignal.timeout(removeTimeoutMs));
  } catch (error) {
    if (kindOf(error) !== 'unavailable')
      log.warn('volume not unmounted in the guest', { volume, why: messageOf(error) });
  }
}

async function detach(port: string, { machine }: ShareModeParts): Promise<void> {
  try {
    await machine.detachPort(port, AbortSignal.timeout(detachTimeoutMs));
  } catch (error) {
    if (!['unavailable', 'failedPrecondition'].includes(kindOf(error))) throw error; // gone with the machine
  }
}

import { readFile, readlink, rm } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import type { Assets } from '#host/assets.ts';
import { type GuestText, printable } from '#base/guest-text.ts';
import { boundLog } from '#host/log/bound-log.ts';
import { logTail, spawnJailed } from '#host/jail/jailed-process.ts';
import {
  allPids,
  identify,
  isRunning,
  killProcess,
  type ProcessIdentity,
  waitUntilGone,
} from '#host/process/process-identity.ts';
import { fileServerCalls } from './file-server-calls.ts';
import type { HostSource } from './host-source.ts';
import { type Room, Rooms } from './rooms.ts';

/**
 * The *file server* of one shared volume: a program of ours (`src/file-server/`) in a jail that holds only it and the
 * volume. It runs as root because files made by a guest's user belong to that user, with a few capabilities in a user
 * namespace where they apply to files only. bubblewrap builds half of the jail; the program closes the other half
 * before it reads input from its client (`src/file-server/jail.ts`, `src/file-server/powers.c`).
 */
export interface FileServerRequest {
  /** Connection of its one client; taken over. */
  readonly channel: Duplex;
  readonly source: HostSource;
  readonly access: FileAccess;
  /** `slave`: later host mounts below the source appear in it. */
  readonly propagation: 'private' | 'slave';
  /** Allows the client to map owners of the volume, for a pod with a user namespace. */
  readonly mapsUsers: boolean;
  /** Id of the sandbox. Identifies servers whose starter was killed. */
  readonly owner: string;
  /** Name, unique in the sandbox; `[a-z0-9-]+`. */
  readonly name: string;
  /** File for its log. The server may outlive this process, and a pipe to this process would end it. */
  readonly logPath: string;
  readonly confine: Confine;
}

/** Places the process under the host limits of its machine, and raises the memory limit by `memoryBytes`. */
type Confine = (pid: number, memoryBytes: number) => Promise<AsyncDisposable>;

/** Record with which a later process finds a server; plain JSON. */
export interface FileServerRecord extends ProcessIdentity {
  readonly descriptors: number;
  readonly file?: string;
}

export interface FileServerAdoption extends Pick<FileServerRequest, 'owner' | 'logPath' | 'confine'> {
  readonly record: FileServerRecord;
}

/** `readOnly` does not apply to mounts below the source; `recursiveReadOnly` does. */
export type FileAccess = 'readWrite' | 'readOnly' | 'recursiveReadOnly';

/** A running server. It ends when it is disposed or its client disconnects. */
export interface FileServer extends AsyncDisposable {
  /** In it, `file` is the name of the only file that is served; absent: the source is a directory. */
  readonly record: FileServerRecord;
  /** Settles with the last lines of its log when it has ended. */
  readonly ended: Promise<readonly GuestText[]>;
}

export interface FileServers {
  serve(request: FileServerRequest, signal: AbortSignal): Promise<FileServer>;
  /** Takes over a server that an earlier process started; undefined if it has ended. */
  adopt(adoption: FileServerAdoption): Promise<FileServer | undefined>;
}

const program = '/files';
/** Root of the served files, in the jail. */
const sharesRoot = '/shares';

/**
 * Capabilities for closing the rest of the jail: mounts (SYS_ADMIN), and users for its user namespace (SETUID, SETGID,
 * SETFCAP to map root, DAC_OVERRIDE for a mount point that is closed to others). In that namespace the server keeps
 * what serving root's files needs (`of_root` in `powers.c`).
 */
const capabilities = ['SYS_ADMIN', 'SETUID', 'SETGID', 'SETFCAP', 'DAC_OVERRIDE'];

export type FileServerAssets = Pick<Assets, 'fileServer'>;

/**
 * Creates the file servers. Errors of a start: `failedPrecondition`, `internal`, `timeout`, with the last lines of the
 * log.
 */
export function createFileServers(assets: FileServerAssets): FileServers {
  const rooms = new Rooms();
  return {
    async serve(request, signal) {
      const { channel, source } = request;
      try {
        signal.throwIfAborted();
        return await startFileServer(assets, request, rooms);
      } catch (error) {
        if (signal.aborted)
          throw new PodvmError('cancelled', `Cannot share ${source.path}: cancelled`, { cause: error });
        throw error;
      } finally {
        channel.destroy(); // the server has its own descriptor
      }
    },
    adopt: (adoption) => adoptFileServer(adoption, rooms),
  };
}

async function adoptFileServer(
  { record, owner, logPath, confine }: FileServerAdoption,
  rooms: Rooms,
): Promise<FileServer | undefined> {
  if (!(await isRunning(record))) return undefined;
  await using undo = new AsyncDisposableStack();
  const room = undo.use(rooms.occupy(owner, record.descriptors));
  undo.use(await confine(record.pid, room.memoryBytes));
  const ended = waitUntilGone(record, new AbortController().signal);
  return serverOf(record, { ended, logPath, owned: undo.move() });
}

interface Served {
  readonly ended: Promise<unknown>;
  readonly logPath: string;
  /** Host resources that it holds until it has ended. */
  readonly owned: AsyncDisposableStack;
}

function serverOf(record: FileServerRecord, { ended, logPath, owned }: Served): FileServer {
  const log = boundLog(logPath);
  const over = ended.then(
    () => owned.disposeAsync(),
    () => owned.disposeAsync(),
  );
  return {
    record,
    ended: over.then(async () => {
      log[Symbol.dispose]();
      return await logTail(logPath);
    }),
    async [Symbol.asyncDispose]() {
      await killProcess(record);
      await over;
      await rm(logPath, { force: true });
    },
  };
}

async function startFileServer(
  assets: FileServerAssets,
  request: FileServerRequest,
  rooms: Rooms,
): Promise<FileServer> {
  const { channel, source, owner, name, access, confine, logPath } = request;
  await using undo = new AsyncDisposableStack();
  const room = undo.use(rooms.take(owner));
  const exported = `${sharesRoot}/${owner}/${name}`;
  const file = source.kind === 'file' ? basename(source.path) : undefined;
  channel.pause(); // only the server reads the channel
  try {
    const { identity, ended } = await spawnJailed({
      what: `the file server of ${source.path}`,
      command: jailedServer(assets, request, room, exported, file),
      output: logPath,
      stdin: channel,
      inherited: [
        source.fd,
        fileServerCalls({ changes: access !== 'recursiveReadOnly', locks: access === 'readWrite' }),
      ],
    });
    undo.use(await confine(identity.pid, room.memoryBytes).catch(endIt(identity)));
    const { descriptors } = room;
    // Its bubblewrap may be killed alone.
    const gone = ended.then(() => waitUntilGone(identity, new AbortController().signal));
    return serverOf(
      { ...identity, descriptors, ...(file === undefined ? {} : { file }) },
      { ended: gone, logPath, owned: undo.move() },
    );
  } catch (error) {
    if (!(error instanceof PodvmError)) throw error;
    const tail = await logTail(logPath);
    await rm(logPath, { force: true });
    throw new PodvmError(error.kind, [error.message, ...tail.slice(-1).map((line) => printable(line))].join(': '), {
      cause: error,
      tail,
    });
  }
}

const endIt = (identity: ProcessIdentity) => async (error: unknown) => {
  await killProcess(identity);
  throw error;
};

/** Descriptor of the source in the jail's first program (`spawnJailed`); the next one is the system call filter. */
const sourceFd = '4';

function jailedServer(
  { fileServer }: FileServerAssets,
  { access, propagation, mapsUsers, source }: FileServerRequest,
  room: Room,
  exported: string,
  file: string | undefined,
): string[] {
  const target = file === undefined ? exported : `${exported}/${file}`;
  const bind: Record<FileAccess, string[]> = {
    readWrite: ['--bind-fd', sourceFd, target],
    readOnly: ['--bind-fd', sourceFd, target, '--remount-ro', target],
    recursiveReadOnly: ['--ro-bind-fd', sourceFd, target],
  };
  return [
    // bubblewrap's namespace is a slave of its parent's; a slave of a private mount receives no mount events.
    ...(propagation === 'private' ? ['unshare', '--mount', '--propagation', 'private', '--'] : []),
    ...['prlimit', `--data=${room.memoryBytes}`, '--'],
    ...['bwrap', '--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-net', '--unshare-cgroup-try'],
    ...['--as-pid-1', '--info-fd', '3', '--clearenv', '--hostname', 'files', '--cap-drop', 'ALL'],
    ...capabilities.flatMap((capability) => ['--cap-add', `CAP_${capability}`]),
    ...['--proc', '/proc', '--ro-bind', fileServer, program],
    ...bind[access],
    ...['--chdir', '/', '--', program, exported, String(room.descriptors)],
    ...(mapsUsers ? ['mapped'] : []),
    ...(propagation === 'slave' ? ['propagated'] : []),
    ...(access === 'recursiveReadOnly' ? ['readonly'] : []),
    ...(access === 'readWrite' ? [] : ['ownlocks']),
    ...[...source.kernelDevices].map((device) => `refuse=${device}`),
  ];
}

/** Ends the servers of an owner whose starter was killed, and returns their pids. Most have ended with their client. */
export async function sweepFileServers(owner: string): Promise<readonly number[]> {
  const found = await fileServersOf(owner);
  for (const identity of found) await killProcess(identity);
  return found.map(({ pid }) => pid);
}

/** Finds running servers by their program and the unique mount point of their volume. */
export async function fileServersOf(owner: string): Promise<readonly ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const pid of await allPids()) {
    const executable = await readlink(`/proc/${pid}/exe`).catch(() => '');
    if (!executable.endsWith(program)) continue;
    const mounts = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
    const identity = await identify(pid);
    if (identity !== undefined && mounts.includes(` ${sharesRoot}/${owner}/`)) found.push(identity);
  }
  return found;
}

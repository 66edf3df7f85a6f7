import { chmod, chown, open, rm, stat, truncate } from 'node:fs/promises';
import { basename } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import {
  adoptBlockClaim,
  claimBlock,
  findBlockSource,
  type BlockClaim,
  type BlockClaimRecord,
  type BlockClaimRequest,
} from '../block-claim.ts';
import type { FileServer, FileServerRequest, FileServers } from '../file-server.ts';
import {
  checkRoomBytes,
  checkScratchBytes,
  diskBytesFor,
  type makeScratchDisk,
  type makeVolumeDisk,
  type ScratchDiskRequest,
} from '../scratch-disk.ts';
import type { ScratchDisk } from '../volumes.ts';

/** Disks without file systems, servers without processes, claims without devices; passes `storage.conformance.ts`. */
export interface FakeStorage {
  readonly makeScratchDisk: typeof makeScratchDisk;
  readonly makeVolumeDisk: typeof makeVolumeDisk;
  readonly files: FileServers;
  readonly claimBlock: typeof claimBlock;
  readonly adoptBlockClaim: typeof adoptBlockClaim;
  /** Resources that are not disposed of yet: `scratch`, `disk NAME`, `server NAME`, `claim PATH`. */
  readonly alive: ReadonlySet<string>;
}

const sectorBytes = 512;
/** Major number of the kernel's loop devices. */
const loopMajor = 7;

export function createFakeStorage(): FakeStorage {
  const alive = new Set<string>();
  const claims = new Set<string>();
  let made = 0;
  const owned = (name: string, undo: () => Promise<void> | void = () => {}) => {
    alive.add(name);
    return {
      [Symbol.asyncDispose]: async () => {
        await undo();
        alive.delete(name);
      },
    };
  };
  const makeDisk = async (name: string, request: ScratchDiskRequest, signal: AbortSignal): Promise<ScratchDisk> => {
    const { path, sizeBytes } = request;
    await makeSparseFile(request, signal);
    return { path, sizeBytes, ...owned(name, () => rm(path, { force: true })) };
  };
  const servers = new Map<number, FileServer>();
  const given = new Map<number, BlockClaim>();
  return {
    alive,
    async makeScratchDisk(request, signal) {
      checkScratchBytes(request.sizeBytes);
      return await makeDisk('scratch', request, signal);
    },
    async makeVolumeDisk({ path, roomBytes, ownerUid }, signal) {
      checkRoomBytes(roomBytes);
      const sizeBytes = diskBytesFor(roomBytes);
      return await makeDisk(`disk ${basename(path)}`, { path, sizeBytes, ownerUid }, signal);
    },
    files: {
      async serve(request, signal) {
        made += 1;
        const server = await startServer(request, made, owned, signal);
        servers.set(server.record.pid, server);
        return server;
      },
      adopt: ({ record }) => Promise.resolve(servers.get(record.pid)),
    },
    adoptBlockClaim: async (record) => given.get(record.keeper.pid) ?? (await Promise.reject(lost(record))),
    async claimBlock(request, signal) {
      const { key } = await findBlockSource(request.path);
      await checkImage(request);
      signal.throwIfAborted();
      if (claims.has(key)) throw new PodvmError('busy', `Cannot attach ${request.path}: another machine uses it`);
      claims.add(key);
      made += 1;
      const claim = claimOf(
        request,
        made,
        owned(`claim ${request.path}`, () => void claims.delete(key)),
      );
      given.set(made, claim);
      return claim;
    },
  };
}

async function makeSparseFile({ path, sizeBytes, ownerUid }: ScratchDiskRequest, signal: AbortSignal): Promise<void> {
  await (await open(path, 'wx', 0o600)).close();
  try {
    await truncate(path, sizeBytes);
    await chmod(path, 0o600);
    if (process.getuid?.() === 0) await chown(path, ownerUid, ownerUid);
    signal.throwIfAborted();
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

const lost = ({ path }: BlockClaimRecord) => new PodvmError('unavailable', `Cannot take over ${path}: it is gone`);

/** Above the kernel's largest pid: no signal, and no limit, reaches another process by it. */
const noPid = 2 ** 23;

async function startServer(
  { channel, source, name, confine }: FileServerRequest,
  number: number,
  owned: (name: string, undo: () => Promise<void>) => AsyncDisposable,
  signal: AbortSignal,
): Promise<FileServer> {
  const pid = noPid + number;
  try {
    signal.throwIfAborted();
    const limits = await confine(pid, 1024 * 1024);
    const ended = Promise.withResolvers<Awaited<FileServer['ended']>>();
    channel.on('error', () => {});
    channel.once('close', () => {
      void limits[Symbol.asyncDispose]();
      ended.resolve([]);
    });
    channel.resume();
    const undo = async () => {
      channel.destroy();
      await ended.promise;
    };
    const file = source.kind === 'file' ? basename(source.path) : undefined;
    const record = { pid, startTicks: '1', descriptors: 1, ...(file === undefined ? {} : { file }) };
    return { record, ended: ended.promise, ...owned(`server ${name}`, undo) };
  } catch (error) {
    channel.destroy();
    if (signal.aborted) throw new PodvmError('cancelled', `Cannot share ${source.path}: cancelled`, { cause: error });
    throw error;
  }
}

async function checkImage({ path }: BlockClaimRequest): Promise<void> {
  const { size } = await stat(path);
  if (size > 0 && size % sectorBytes === 0) return;
  throw new PodvmError(
    'failedPrecondition',
    `Cannot attach ${path}: an image must have a multiple of ${sectorBytes} bytes, got ${size}`,
  );
}

function claimOf({ path, readOnly }: BlockClaimRequest, minor: number, owner: AsyncDisposable): BlockClaim {
  const device = { major: loopMajor, minor };
  return {
    device,
    record: { path, readOnly, device, keeper: { pid: minor, startTicks: '1' } },
    measure: async () => (await stat(path)).size,
    ...owner,
  };
}

import { errno, fsyncFlags, opcode, openFlags, size, writeFlags } from './fuse.ts';
import type { Request } from './message.ts';
import type { OpenFile } from './open-files.ts';
import type { Result, Service } from './service.ts';

type FileCall = (service: Service, file: OpenFile, request: Request) => Result;

/** Limit of bytes copied at once, so that other requests do not wait; the guest requests the rest again. */
const maxCopyBytes = 8 * 1024 * 1024;

const read: FileCall = ({ engine, reply }, file, request) => {
  const length = Math.min(request.u32(16), reply.maxBytes);
  return engine.readAt(file.fd, reply.bytes, reply.at(0), length, request.u64(8));
};

const readDirectory: FileCall = ({ engine, reply }, file, request) => {
  const length = Math.min(request.u32(16), reply.maxBytes);
  return engine.listNode(file.fd, request.bytes, request.at(8), reply.bytes, reply.at(0), length);
};

const write: FileCall = (service, file, request) => {
  const { engine, reply } = service;
  const [length, flags] = [request.u32(16), request.u32(20)];
  const isMapped = (flags & writeFlags.fromCache) !== 0;
  const written =
    isMapped && (file.flags & openFlags.append) !== 0
      ? writeInPlace(service, file, request)
      : engine.writeAt(file.fd, request.bytes, request.at(size.writeRequest), length, request.u64(8));
  if (written < 0) return written;
  if ((flags & writeFlags.killSetIds) !== 0) engine.clearSetIds(file.node.fd);
  reply.u64(0, written);
  return 8;
};

/** Writes a mapped page to its place; a file that is open for appending would write it to the end. */
function writeInPlace({ engine }: Service, file: OpenFile, request: Request): number {
  const fd = engine.reopenFile(file.node.fd, openFlags.writeOnly);
  if (fd < 0) return fd;
  try {
    return engine.writeAt(fd, request.bytes, request.at(size.writeRequest), request.u32(16), request.u64(8));
  } finally {
    engine.close(fd);
  }
}

const allocate: FileCall = ({ engine }, file, request) =>
  engine.allocate(file.fd, request.u32(24), request.u64(8), request.u64(16));

const seek: FileCall = ({ engine, reply }, file, request) => {
  const found = engine.seekFrom(file.fd, request.u64(8), request.u32(16));
  if (found < 0) return found;
  reply.u64(0, found);
  return 8;
};

const copyRange: FileCall = ({ engine, files, reply }, file, request) => {
  const target = files.get(request.u64(24));
  if (target === undefined) return -errno.badHandle;
  const length = Math.min(request.u64(40), maxCopyBytes);
  const copied = engine.copyBetween(file.fd, request.u64(8), target.fd, request.u64(32), length);
  if (copied < 0) return copied;
  reply.u64(0, copied);
  return 8;
};

const fsync: FileCall = ({ flushes, later }, file, request) =>
  flushes.start(file.fd, (request.u32(8) & fsyncFlags.dataOnly) !== 0, later(request));

/** Answers the close of one descriptor of an open file with the error that closing it gives (NFS, quotas). */
const flush: FileCall = ({ engine, locks }, file, request) => {
  locks.drop(file.node, request.key(16));
  return (file.flags & openFlags.accessMode) === 0 ? 0 : engine.closeOne(file.fd);
};

const release: FileCall = ({ nodes, files, locks }, file, request) => {
  files.remove(request.u64(0));
  locks.released(file);
  nodes.closed(file.node);
  return 0;
};

const getLock: FileCall = ({ locks, reply }, file, request) => {
  const result = locks.test(file, request);
  if (result < 0) return result;
  reply.bytes.set(request.bytes.subarray(request.at(16), request.at(16 + size.lock)), reply.at(0));
  return size.lock;
};

/** Requests on a file by its handle. */
export const fileCalls: ReadonlyMap<number, FileCall> = new Map([
  [opcode.read, read],
  [opcode.readDirectory, readDirectory],
  [opcode.write, write],
  [opcode.fallocate, allocate],
  [opcode.seek, seek],
  [opcode.copyFileRange, copyRange],
  [opcode.fsync, fsync],
  [opcode.fsyncDirectory, fsync],
  [opcode.flush, flush],
  [opcode.release, release],
  [opcode.releaseDirectory, release],
  [opcode.getLock, getLock],
  [opcode.setLock, ({ locks }, file, request) => locks.set(file, request)],
  [opcode.setLockWaiting, ({ locks, later }, file, request) => locks.set(file, request, later(request))],
]);

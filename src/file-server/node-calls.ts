import { timeNow, timeOmitted } from './served.ts';
import { errno, fileType, opcode, openFlags, openRequestFlags, size, validAttribute as valid } from './fuse.ts';
import type { Request } from './message.ts';
import type { Node } from './nodes.ts';
import { keptFlags } from './open-files.ts';
import type { Result, Service } from './service.ts';

type NodeCall = (service: Service, node: Node, request: Request) => Result;

const permissionBits = 0o7777;
/** RENAME_EXCHANGE of renameat2(2): both names stay. */
const renameExchange = 2;

const lookUp: NodeCall = ({ nodes, reply }, node, request) => nodes.enter(node, request, 0, reply);

const getAttributes: NodeCall = ({ nodes, reply }, node) => nodes.attributes(node, reply);

const setAttributes: NodeCall = (service, node, request) => {
  const { engine, nodes, reply } = service;
  const asked = request.u32(0);
  const has = (bit: number) => (asked & bit) !== 0;
  const steps = [
    has(valid.mode) && (() => engine.changeModeOfNode(node.fd, request.u32(68) & permissionBits)),
    has(valid.uid | valid.gid) && (() => changeOwner(service, node, request)),
    has(valid.size) && (() => truncate(service, node, request)),
    has(valid.killSetIds) && (() => engine.clearSetIds(node.fd)),
    has(valid.atime | valid.mtime) && (() => setTimes(service, node, request)),
  ];
  for (const step of steps) {
    const result = step === false ? 0 : step();
    if (result < 0) return result;
  }
  return nodes.attributes(node, reply);
};

function changeOwner({ engine }: Service, node: Node, request: Request): number {
  const asked = request.u32(0);
  const uid = (asked & valid.uid) === 0 ? -1 : request.u32(76);
  const gid = (asked & valid.gid) === 0 ? -1 : request.u32(80);
  return engine.changeOwnerOfNode(node.fd, uid, gid);
}

/** Truncates through the open file if there is one: it may be open for writing though its mode now forbids it. */
function truncate({ engine, files }: Service, node: Node, request: Request): number {
  const length = request.u64(16);
  if ((request.u32(0) & valid.handle) === 0) return engine.truncateNode(node.fd, length);
  const file = files.get(request.u64(8));
  return file === undefined ? -errno.badHandle : engine.truncateFile(file.fd, length);
}

function setTimes({ engine }: Service, node: Node, request: Request): number {
  const asked = request.u32(0);
  const nanoseconds = (set: number, now: number, at: number) =>
    (asked & set) === 0 ? timeOmitted : (asked & now) === 0 ? request.u32(at) : timeNow;
  const atimeNs = nanoseconds(valid.atime, valid.atimeNow, 56);
  const mtimeNs = nanoseconds(valid.mtime, valid.mtimeNow, 60);
  return engine.setTimesOf(node.fd, request.i64(32), atimeNs, request.i64(40), mtimeNs);
}

const statfs: NodeCall = ({ engine, reply }, node) => {
  const result = engine.spaceOf(node.fd, reply.bytes, reply.at(0));
  return result < 0 ? result : size.statfs;
};

const readLink: NodeCall = ({ engine, reply }, node) => engine.readLinkOf(node.fd, reply.bytes, reply.at(0));

/** Replies with the entry of a new file. */
function made({ nodes, reply }: Service, node: Node, request: Request, nameAt: number, result: number): number {
  return result < 0 ? result : nodes.enter(node, request, nameAt, reply);
}

const symlink: NodeCall = (service, node, request) =>
  made(service, node, request, 0, service.engine.symlinkIn(node.fd, request.bytes, request.at(0)));

const makeNode: NodeCall = (service, node, request) => {
  const [mode, device] = [request.u32(0), request.u32(4)];
  const result = service.engine.makeNodeIn(node.fd, request.bytes, request.at(16), mode, device);
  return made(service, node, request, 16, result);
};

const makeDirectory: NodeCall = (service, node, request) => {
  const mode = fileType.directory | (request.u32(0) & permissionBits);
  return made(service, node, request, 8, service.engine.makeNodeIn(node.fd, request.bytes, request.at(8), mode, 0));
};

const link: NodeCall = (service, node, request) => {
  const target = service.nodes.get(request.u64(0));
  if (target === undefined) return -errno.stale;
  const result = service.engine.linkIn(node.fd, request.bytes, request.at(8), target.fd);
  return made(service, node, request, 8, result);
};

const removeFile: NodeCall = ({ engine }, node, request) =>
  engine.removeIn(node.fd, request.bytes, request.at(0), false);

const removeDirectory: NodeCall = ({ engine }, node, request) =>
  engine.removeIn(node.fd, request.bytes, request.at(0), true);

function rename({ engine, nodes }: Service, node: Node, request: Request, flags: number, nameAt: number): number {
  const target = nodes.get(request.u64(0));
  if (target === undefined) return -errno.stale;
  const result = engine.renameIn(node.fd, request.bytes, request.at(nameAt), target.fd, flags);
  if (result < 0) return result;
  const newNameAt = nameAt + request.bytes.indexOf(0, request.at(nameAt)) + 1 - request.at(nameAt);
  nodes.renamed(target, request, newNameAt);
  if ((flags & renameExchange) !== 0) nodes.renamed(node, request, nameAt);
  return result;
}

const setXattr: NodeCall = ({ engine }, node, request) =>
  engine.setAttribute(node.fd, request.bytes, request.at(8), request.u32(0), request.u32(4));

const getXattr: NodeCall = (service, node, request) => {
  const { engine, reply } = service;
  return sized(service, request, (length) =>
    engine.getAttribute(node.fd, request.bytes, request.at(8), reply.bytes, reply.at(0), length),
  );
};

const listXattr: NodeCall = (service, node, request) => {
  const { engine, reply } = service;
  return sized(service, request, (length) => engine.listAttributes(node.fd, reply.bytes, reply.at(0), length));
};

/** Replies with the length alone to a request with a length of 0. */
function sized({ reply }: Service, request: Request, read: (length: number) => number): number {
  const length = Math.min(request.u32(0), reply.maxBytes);
  const result = read(length);
  if (result < 0 || length > 0) return result;
  reply.u64(0, result);
  return 8;
}

const removeXattr: NodeCall = ({ engine }, node, request) =>
  engine.removeAttribute(node.fd, request.bytes, request.at(0));

const open: NodeCall = ({ engine, files, reply }, node, request) => {
  const flags = request.u32(0);
  const result = files.open(node, flags, reply);
  if (result < 0 || (request.u32(4) & openRequestFlags.killSetIds) === 0) return result;
  engine.clearSetIds(node.fd);
  return result;
};

const openDirectory: NodeCall = ({ files, reply }, node) => files.open(node, 0, reply);

/** Makes and opens a file, or opens one that exists; a file that exists is checked first. */
const create: NodeCall = (service, node, request) => {
  const { engine, nodes, reply } = service;
  const [flags, mode] = [request.u32(0), request.u32(4) & permissionBits];
  const fd = engine.createIn(node.fd, request.bytes, request.at(16), flags & keptFlags, mode);
  if (fd === -errno.exists && (flags & openFlags.exclusive) === 0) return openExisting(service, node, request);
  return fd < 0
    ? fd
    : entered(service, fd, flags, nodes.enterNode(node, engine.nodeOf(fd), reply, nodes.placeOf(node, request, 16)));
};

function openExisting({ nodes, files, reply }: Service, directory: Node, request: Request): number {
  const entry = nodes.enter(directory, request, 16, reply);
  const node = entry < 0 ? undefined : nodes.get(reply.readU64(0));
  if (node === undefined) return entry;
  const result = files.open(node, request.u32(0), reply, size.entry);
  if (result >= 0) return size.entry + result;
  nodes.forget(node.id, 1);
  return result;
}

const createUnnamed: NodeCall = (service, node, request) => {
  const { engine, nodes, reply } = service;
  const flags = request.u32(0);
  const fd = engine.createUnnamedIn(
    node.fd,
    flags & (keptFlags | openFlags.exclusive),
    request.u32(4) & permissionBits,
  );
  return fd < 0 ? fd : entered(service, fd, flags, nodes.enterNode(node, engine.nodeOf(fd), reply));
};

/** Adds the handle of the opened file to its entry. */
function entered({ engine, nodes, files, reply }: Service, fd: number, flags: number, entry: number): number {
  const node = entry < 0 ? undefined : nodes.get(reply.readU64(0));
  if (node === undefined) {
    engine.close(fd);
    return entry;
  }
  return size.entry + files.add(fd, node, flags, reply, size.entry);
}

/** Requests on a file by its node. */
export const nodeCalls: ReadonlyMap<number, NodeCall> = new Map([
  [opcode.lookUp, lookUp],
  [opcode.getAttributes, getAttributes],
  [opcode.setAttributes, setAttributes],
  [opcode.statfs, statfs],
  [opcode.readLink, readLink],
  [opcode.symlink, symlink],
  [opcode.makeNode, makeNode],
  [opcode.makeDirectory, makeDirectory],
  [opcode.link, link],
  [opcode.removeFile, removeFile],
  [opcode.removeDirectory, removeDirectory],
  [opcode.rename, (service, node, request) => rename(service, node, request, 0, 8)],
  [opcode.rename2, (service, node, request) => rename(service, node, request, request.u32(8), 16)],
  [opcode.setXattr, setXattr],
  [opcode.getXattr, getXattr],
  [opcode.listXattr, listXattr],
  [opcode.removeXattr, removeXattr],
  [opcode.open, open],
  [opcode.openDirectory, openDirectory],
  [opcode.create, create],
  [opcode.createUnnamed, createUnnamed],
]);

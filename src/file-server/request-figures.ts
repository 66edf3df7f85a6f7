import { type RequestKind, requestKinds } from '#base/file-requests.ts';
import { opcode } from './fuse.ts';

/** Calls that count requests for the host (`request-figures.c`). Neither throws. */
export interface Counted {
  beginRequest(): void;
  /** Counts the request that has begun, as one of this kind by its place in `requestKinds`; -1 counts none. */
  endRequest(kind: number): void;
}

const opcodesOf: Partial<Record<RequestKind, readonly number[]>> = {
  look: [
    ...[opcode.lookUp, opcode.getAttributes, opcode.readLink, opcode.open, opcode.statfs, opcode.getXattr],
    ...[opcode.listXattr, opcode.openDirectory, opcode.readDirectory, opcode.seek],
  ],
  read: [opcode.read],
  write: [opcode.write, opcode.fallocate, opcode.copyFileRange],
  change: [
    ...[opcode.setAttributes, opcode.symlink, opcode.makeNode, opcode.makeDirectory, opcode.removeFile],
    ...[opcode.removeDirectory, opcode.rename, opcode.link, opcode.setXattr, opcode.removeXattr, opcode.create],
    ...[opcode.rename2, opcode.createUnnamed],
  ],
};

const numbers = new Map<number, number>([
  ...Object.entries(opcodesOf).flatMap(([kind, opcodes]) =>
    opcodes.map((code) => [code, requestKinds.findIndex((each) => each === kind)] as const),
  ),
  // Counted when the disk has answered.
  ...[opcode.fsync, opcode.fsyncDirectory].map((code) => [code, -1] as const),
]);
const other = requestKinds.indexOf('other');

export const kindNumberOf = (code: number): number => numbers.get(code) ?? other;

import { PodvmError } from '#base/errors.ts';
import { again, type Descriptors, type Sockets } from '#engine/engine.ts';

export type NetlinkParts = Pick<Sockets, 'openNetlink' | 'interfaceIndex'> &
  Pick<Descriptors, 'read' | 'write' | 'close'>;

// netlink(7), rtnetlink(7)
export const message = { newLink: 16, newAddress: 20, deleteAddress: 21, newRoute: 24 } as const;
const requestFlag = 1;
const ackFlag = 4;
export const createFlags = 0x400 | 0x100; // NLM_F_CREATE | NLM_F_REPLACE
const errorType = 2;
const headerBytes = 16;

export interface Attribute {
  readonly type: number;
  readonly value: Uint8Array;
}

export const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
};

/** One request, answered before this returns. Errors: `failedPrecondition` with the kernel's errno. */
export function requestNetlink(
  parts: NetlinkParts,
  what: string,
  type: number,
  flags: number,
  body: Uint8Array,
  attributes: readonly Attribute[],
): void {
  const fd = parts.openNetlink('route', 0);
  try {
    parts.write(fd, encode(type, flags, body, attributes));
    const answer = new Uint8Array(1024);
    const bytes = parts.read(fd, answer); // rtnetlink answers before write returns
    const view = new DataView(answer.buffer);
    const isAnswer = bytes !== again && bytes >= headerBytes + 4 && view.getUint16(4, true) === errorType;
    const errno = isAnswer ? -view.getInt32(headerBytes, true) : -1;
    if (errno !== 0) throw new PodvmError('failedPrecondition', `Cannot ${what}: the kernel answered errno ${errno}`);
  } finally {
    parts.close(fd);
  }
}

function encode(type: number, flags: number, body: Uint8Array, attributes: readonly Attribute[]): Uint8Array {
  const padded = (length: number) => (length + 3) & ~3;
  const length = attributes.reduce(
    (sum, { value }) => sum + padded(4 + value.length),
    headerBytes + padded(body.length),
  );
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, requestFlag | ackFlag | flags, true);
  view.setUint32(8, 1, true);
  bytes.set(body, headerBytes);
  let at = headerBytes + padded(body.length);
  for (const attribute of attributes) {
    view.setUint16(at, 4 + attribute.value.length, true);
    view.setUint16(at + 2, attribute.type, true);
    bytes.set(attribute.value, at + 4);
    at += padded(4 + attribute.value.length);
  }
  return bytes;
}

import { PodvmError } from '#base/errors.ts';
import { again, type Asides, type Descriptors, type Sockets, type Timers } from '#engine/engine.ts';
import { runAside } from '../process/aside.ts';
import type { Children } from '../process/children.ts';

export type NetlinkParts = Pick<Sockets, 'openNetlink' | 'interfaceIndex'> &
  Pick<Descriptors, 'read' | 'write' | 'close'> &
  Pick<Asides, 'netlinkAside'> &
  Pick<Timers, 'setTimer'>;

/** Limit of the bytes that a process aside sends. A longer list of requests is sent by the agent itself. */
const maxAsideBytes = 4096;

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

export interface NetlinkRequest {
  /** Completes "Cannot ..." in an error: `add route 10.0.0.0/8`. */
  readonly what: string;
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
  readonly attributes: readonly Attribute[];
}

/**
 * Sends requests one after another, and returns when all are answered. Errors: `failedPrecondition` with the kernel's
 * errno.
 */
export function requestNetlink(parts: NetlinkParts, requests: readonly NetlinkRequest[]): void {
  const fd = parts.openNetlink('route', 0);
  try {
    for (const request of requests) requestOne(parts, fd, request);
  } finally {
    parts.close(fd);
  }
}

/** Sends requests in a process aside, because the kernel is slow with the first request of each kind. */
export async function requestNetlinkAside(
  parts: NetlinkParts,
  children: Pick<Children, 'wait'>,
  requests: readonly NetlinkRequest[],
): Promise<void> {
  const fd = parts.openNetlink('route', 0);
  try {
    const messages = joined(requests.map(encode));
    const fits = messages.length <= maxAsideBytes;
    if (fits && (await runAside(parts, children, () => parts.netlinkAside(fd, messages))) === 0) return;
  } finally {
    parts.close(fd);
  }
  requestNetlink(parts, requests); // repeated for the error; requests that succeeded can be repeated
}

function requestOne(parts: NetlinkParts, fd: number, request: NetlinkRequest): void {
  parts.write(fd, encode(request));
  const answer = new Uint8Array(1024);
  const bytes = parts.read(fd, answer); // rtnetlink answers before write returns
  const view = new DataView(answer.buffer);
  const isAnswer = bytes !== again && bytes >= headerBytes + 4 && view.getUint16(4, true) === errorType;
  const errno = isAnswer ? -view.getInt32(headerBytes, true) : -1;
  if (errno === 0) return;
  throw new PodvmError('failedPrecondition', `Cannot ${request.what}: the kernel answered errno ${errno}`);
}

function joined(messages: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(messages.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const message of messages) {
    all.set(message, at);
    at += message.length;
  }
  return all;
}

function encode({ type, flags, body, attributes }: NetlinkRequest): Uint8Array {
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

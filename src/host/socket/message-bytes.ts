import type { RawData } from 'ws';

/** Returns the bytes of a WebSocket's message, which the library gives in several forms. */
export function messageBytes(data: RawData): Buffer {
  if (data instanceof ArrayBuffer) return Buffer.from(data);
  return Array.isArray(data) ? Buffer.concat(data) : data;
}

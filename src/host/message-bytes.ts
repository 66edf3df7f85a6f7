import type { RawData } from 'ws';

/** The bytes of a WebSocket's message, in whichever of its forms the library gives them. */
export function messageBytes(data: RawData): Buffer {
  if (data instanceof ArrayBuffer) return Buffer.from(data);
  return Array.isArray(data) ? Buffer.concat(data) : data;
}

import type { Descriptors, Text } from '#engine/engine.ts';

/** Returns the first `maxBytes` bytes of a descriptor and closes it. */
export function readStart(
  parts: Pick<Descriptors, 'read' | 'close'> & Pick<Text, 'encodeBase64'>,
  fd: number,
  maxBytes: number,
): { data: string; truncated: boolean } {
  try {
    const bytes = new Uint8Array(maxBytes + 1);
    let length = 0;
    for (let read = 1; read > 0 && length < bytes.length; length += Math.max(read, 0))
      read = parts.read(fd, bytes, length);
    return { data: parts.encodeBase64(bytes.subarray(0, Math.min(length, maxBytes))), truncated: length > maxBytes };
  } finally {
    parts.close(fd);
  }
}

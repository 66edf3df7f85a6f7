import { PodvmError } from '#base/errors.ts';
import { diskRoom } from '#host/file/disk-room.ts';

/** Checks that the bytes fit on the disk before any is written. Errors: `exhausted`. */
export async function assertRoom(directory: string, bytes: number, doing: string): Promise<void> {
  const { freeBytes, reservedBytes } = await diskRoom(directory);
  if (bytes <= freeBytes - reservedBytes) return;
  throw new PodvmError(
    'exhausted',
    `Cannot ${doing}: the disk is full: ${bytes} bytes are needed beside ${reservedBytes} kept free, got ${freeBytes}`,
    { fix: 'Free some space or remove images with `podvm image rm`.' },
  );
}

import type { DiskError } from '#vm/driver.ts';

/** Describes a failure of the host for a disk of the pod, in a sentence. */
export function diskTroubleOf({ serial, operation, isFull }: DiskError): string {
  const what = operation === 'write' ? 'written' : 'read';
  const why = isFull ? "the host's file system is full" : 'the host reports an input/output error';
  return `Disk ${serial} could not be ${what}: ${why}; the container that asked was told so`;
}

import { PodvmError } from '#base/errors.ts';
import type { MachineShape, MachineSpec } from './driver.ts';

const idPattern = /^[a-z0-9-]{1,40}$/;
/** Limits of a specification for any driver; memory in `MiB`. */
const limits = { minMemoryMiB: 64, maxMemoryMiB: 1024 * 1024, maxVcpus: 64 } as const;

/** Returns the shape of the template that the machine makes or is restored from. */
export function shapeOf({ memoryMiB, vcpus, tap, tenant }: MachineSpec): MachineShape {
  return { memoryMiB, vcpus, hasNic: tap !== undefined, ...(tenant === undefined ? {} : { tenant }) };
}

/** Checks a specification. Errors: `invalid` if no driver may start it. */
export function assertMachineSpec({ id, memoryMiB, vcpus, uid }: Omit<MachineSpec, 'from'>): void {
  const { minMemoryMiB, maxMemoryMiB, maxVcpus } = limits;
  const refuse = (reason: string, got: unknown) => {
    const name = idPattern.test(id) ? id : '?';
    throw new PodvmError('invalid', `Cannot start machine ${name}: ${reason}, got ${String(got)}`);
  };
  if (!idPattern.test(id)) refuse('bad id', JSON.stringify(id).slice(0, 100));
  if (!Number.isInteger(memoryMiB) || memoryMiB < minMemoryMiB || memoryMiB > maxMemoryMiB) {
    refuse(`memory must be ${minMemoryMiB} to ${maxMemoryMiB} MiB`, memoryMiB);
  }
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > maxVcpus) refuse(`vcpus must be 1 to ${maxVcpus}`, vcpus);
  if (!Number.isInteger(uid) || uid < 1) refuse('the VMM must not run as root', uid);
}

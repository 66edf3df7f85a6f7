import assert from 'node:assert/strict';
import { type ErrorKind, kindOf } from '#base/errors.ts';
import type { Machine, MachineDriver, MachineRecord, MachineSpec } from '../driver.ts';

/** A driver and its surroundings, for the suite. Disposing removes everything that the suite left. */
export interface DriverHarness extends AsyncDisposable {
  readonly driver: MachineDriver;
  /** Makes a valid spec that boots, with a unique id and an empty directory. */
  makeSpec(): Promise<MachineSpec>;
  /** Creates a disk's file in the machine's directory, owned by its user. */
  makeDiskFile(spec: MachineSpec, file: string): Promise<void>;
  growDiskFile(spec: MachineSpec, file: string, sizeBytes: number): Promise<void>;
  /** Lists processes and mounts of that machine, and the files in its directory except logs. Empty when it is gone. */
  leftovers(spec: MachineSpec): Promise<readonly string[]>;
  /** Kills the VMM without the driver. */
  killFromOutside(machine: Machine): Promise<void>;
  /** Makes the guest power itself off. */
  powerOffGuest(machine: Machine): Promise<void>;
  /** Starts a machine in another process, which then ends. */
  startElsewhere(spec: MachineSpec): Promise<MachineRecord>;
}

export type Harness = () => DriverHarness;

export const soon = () => AbortSignal.timeout(60_000);
export const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

export async function assertNothingLeft(harness: DriverHarness, spec: MachineSpec): Promise<void> {
  assert.deepEqual(await harness.leftovers(spec), []);
}

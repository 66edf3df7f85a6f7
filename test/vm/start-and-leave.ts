import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';
import type { MachineSpec } from '#vm/driver.ts';

/** Starts the machine of its argument, prints its record and exits: the machine outlives it. */
type Input = Parameters<typeof createQemuDriver>[0] & { readonly spec: MachineSpec };
const { spec, ...options } = JSON.parse(process.argv[2] ?? '') as Input; // SAFE: machine.test.ts wrote it
const machine = await createQemuDriver(options).start(spec, AbortSignal.timeout(60_000));
process.stdout.write(JSON.stringify(machine.record), () => process.exit(0));

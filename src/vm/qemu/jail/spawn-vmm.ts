import { spawnJailed, type JailedProcess } from '#host/jail/jailed-process.ts';
import { jailedCommand, type JailSpec } from './jail.ts';
import { seccompFilter } from './seccomp-filter.ts';

/** Starts a program in the VMM's jail; `jailFds` lists the descriptors that it inherits. Errors: as `spawnJailed`. */
export async function spawnVmm(jail: JailSpec, command: readonly string[], logPath: string): Promise<JailedProcess> {
  const inherited = [seccompFilter()];
  return await spawnJailed({ what: 'the VMM', command: jailedCommand(jail, command), output: logPath, inherited });
}

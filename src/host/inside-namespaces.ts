/**
 * Environment variable of a podvm that an ordinary user has started: it runs as root of a user namespace that has the user's
 * own and subordinate ids (`src/daemon/rootless/`). Value: `UID:DIRECTORY`, the user and the working directory of the command.
 */
export const insideVariable = 'PODVM_INSIDE';

const [, uid, directory] = /^(\d+):(\/.*)$/s.exec(process.env[insideVariable] ?? '') ?? [];

/** Whether this process is such a one. */
export const isInside = uid !== undefined && process.getuid?.() === 0;

/** State directory of such a process: the user's own is mounted there, where jailed users reach it. */
export const insideRoot = '/run/podvm';

/** The user on the host that this process acts for. */
export const userOnHost = (): number => (isInside ? Number(uid) : (process.getuid?.() ?? 0));

/** Continues in the working directory of the command. */
export function enterDirectory(): void {
  if (isInside && directory !== undefined) process.chdir(directory);
}

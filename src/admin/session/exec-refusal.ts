import { PodvmError, messageOf } from '#base/errors.ts';
import type { ExecStatus } from '#api/exec.ts';
import { errorBodyOf } from '../error-body.ts';

export const noSuchProgram = 127;
export const notExecutable = 126;

/** crun's messages for a command that it cannot execute. */
const words = [
  { says: /executable file `([^`]*)` not found/, exitCode: noSuchProgram, why: 'no such program' },
  { says: /the path `([^`]*)` exists but it is not executable/, exitCode: notExecutable, why: 'it is not executable' },
  { says: /the path `([^`]*)` is not a regular file/, exitCode: notExecutable, why: 'it is not a regular file' },
] as const;

/**
 * Returns the final status of an exec that did not start. A command that is missing or not executable gets a shell's
 * exit code.
 */
export function refusalOf(error: unknown): ExecStatus {
  const message = messageOf(error);
  for (const { says, exitCode, why } of words) {
    const found = says.exec(message);
    if (found === null) continue;
    const plain = new PodvmError('notFound', `Cannot run ${found[1]}: ${why}`, {
      fix: 'Name a program of the container by its path, or run it by a shell: -- sh -c "...".',
    });
    return { error: errorBodyOf(plain), exitCode };
  }
  return { error: errorBodyOf(error) };
}

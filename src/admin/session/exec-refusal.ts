import { PodvmError, messageOf } from '#base/errors.ts';
import type { ExecStatus } from '#api/exec.ts';
import { errorBodyOf } from '../error-body.ts';

export const noSuchProgram = 127;
export const notExecutable = 126;

/** Messages for a command that cannot be executed: crun's, and those of execve (src/engine/guest/enter.c). */
const words = [
  { says: /executable file `([^`]*)` not found/, exitCode: noSuchProgram, why: 'no such program' },
  { says: /the path `([^`]*)` exists but it is not executable/, exitCode: notExecutable, why: 'it is not executable' },
  { says: /the path `([^`]*)` is not a regular file/, exitCode: notExecutable, why: 'it is not a regular file' },
  // The file itself is there, or the words above would match.
  {
    says: /exec `([^`]*)`: No such file or directory/,
    exitCode: noSuchProgram,
    why: 'the interpreter or loader that it names is missing',
  },
  { says: /exec `([^`]*)`: Exec format error/, exitCode: notExecutable, why: 'it is no program for this processor' },
  { says: /exec `([^`]*)`: (.+?)(?:: in call \w+)?$/, exitCode: notExecutable },
  { says: /cannot open `([^`]*)`: (.+?)(?:: in call \w+)?$/, exitCode: notExecutable },
] as const satisfies readonly { readonly says: RegExp; readonly exitCode: number; readonly why?: string }[];

/**
 * Returns the final status of an exec that did not start. A command that is missing or not executable gets a shell's
 * exit code.
 */
export function refusalOf(error: unknown): ExecStatus {
  const message = messageOf(error);
  for (const { says, exitCode, ...meaning } of words) {
    const found = says.exec(message);
    if (found === null) continue;
    const why = 'why' in meaning ? meaning.why : found[2];
    const plain = new PodvmError('notFound', `Cannot run ${found[1]}: ${why}`, {
      fix: 'Name a program of the container by its path, or run it by a shell: -- sh -c "...".',
    });
    return { error: errorBodyOf(plain), exitCode };
  }
  return { error: errorBodyOf(error) };
}

import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

/** The kernel's MAX_ARG_STRLEN, in bytes: one argument or variable with the NUL at its end. */
const maxStringBytes = 128 * 1024;
/** A quarter of a stack of 8 MiB (execve(2)), in bytes: all of them, each with its NUL and a pointer. */
const maxTotalBytes = 2 * 1024 * 1024;
const pointerBytes = 8;
/** What stands there beside them, in bytes: the program's path, and the variables that the agent adds. */
const reservedBytes = 8 * 1024;
/** The C library of crun looks at all variables for each that it sets: so many take 23 s, emulated. */
const maxVariables = 16_384;

const maxProcessBytes = maxTotalBytes - reservedBytes;
const fix = 'Put large values into files: mount the ConfigMap or Secret as a volume.';

/**
 * The room that the kernel has for a process' arguments and variables. It is looked at before a machine is asked: the
 * kernel itself would say "Argument list too long", and no more.
 */
export interface ProcessRoom {
  /** Errors: `invalid` for a text that is too long, has a NUL, or has no room beside the others. */
  take(name: string, text: string): void;
  /** A variable, by its name; `instead` is the value that it replaces. Errors: the same; `invalid` for too many. */
  takeVariable(name: string, value: string, instead?: string): void;
}

/** `what` is whose arguments they are, for messages; `taken` are bytes that are taken already. */
export function createProcessRoom(what: string, taken = 0): ProcessRoom {
  let variables = 0;
  const refuse = (why: string) => new PodvmError('invalid', `Cannot run ${what}: ${why}`, { fix });
  const add = (name: string, text: string, bytes: number) => {
    if (text.includes('\0')) {
      throw new PodvmError('invalid', `Cannot run ${what}: ${name} has a NUL byte, which no process can be given`);
    }
    if (bytes > maxStringBytes) {
      throw refuse(`${name} is too long (E2BIG): the kernel takes ${maxStringBytes - 1} bytes, got ${bytes - 1}`);
    }
    taken += bytes + pointerBytes;
    if (taken <= maxProcessBytes) return;
    const most = `${maxProcessBytes} bytes of them together`;
    throw refuse(
      `its arguments and variables are too long (E2BIG): the kernel takes ${most}, and with ${name} it is more`,
    );
  };
  return {
    take: (name, text) => add(name, text, Buffer.byteLength(text) + 1),
    takeVariable(name, value, instead) {
      if (instead === undefined) variables += 1;
      else taken -= variableBytes(name, instead) + pointerBytes;
      if (variables > maxVariables) throw refuse(`a process has at most ${maxVariables} variables`);
      add(`the variable ${printable(name, 80)}`, `${name}${value}`, variableBytes(name, value));
    },
  };
}

const variableBytes = (name: string, value: string) => Buffer.byteLength(name) + Buffer.byteLength(value) + 2;

/** What variables, as `NAME=value`, take of the room. */
export const envBytesOf = (env: readonly string[]): number =>
  env.reduce((sum, variable) => sum + Buffer.byteLength(variable) + 1 + pointerBytes, 0);

/** Errors: `invalid` for a command that the kernel cannot take beside variables of `envBytes`, and for none at all. */
export function checkCommand(what: string, command: readonly string[], envBytes = 0): void {
  if (command.length === 0 || command[0] === '') {
    throw new PodvmError('invalid', `Cannot run ${what}: no command was given`, { fix: 'Give a command.' });
  }
  const room = createProcessRoom(what, envBytes);
  for (const [at, argument] of command.entries()) room.take(`argument ${at}`, argument);
}

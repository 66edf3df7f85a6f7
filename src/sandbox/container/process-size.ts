import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';

/** The kernel's MAX_ARG_STRLEN, in bytes: one argument or variable including the final NUL. */
const maxStringBytes = 128 * 1024;
/** A quarter of a stack of 8 MiB (execve(2)), in bytes: all of them, each with its NUL and a pointer. */
const maxTotalBytes = 2 * 1024 * 1024;
const pointerBytes = 8;
/** Room for the program's path and the variables that the agent adds, in bytes. */
const reservedBytes = 8 * 1024;
/** The C library of crun searches all variables for each that it sets: this many take 23 s, emulated. */
const maxVariables = 16_384;

const maxProcessBytes = maxTotalBytes - reservedBytes;
const fix = 'Put large values into files: mount the ConfigMap or Secret as a volume.';

/**
 * The kernel's room for a process' arguments and variables. It is checked before a call to the machine: the kernel's
 * own error would only be "Argument list too long".
 */
export interface ProcessRoom {
  /** Errors: `invalid` for a text that is too long, has a NUL, or does not fit in the room left. */
  take(name: string, text: string): void;
  /** Takes a variable; `instead` is the value that it replaces. Errors: the same; `invalid` for too many. */
  takeVariable(name: string, value: string, instead?: string): void;
}

/** `what` names the process, for messages; `taken`: bytes in use already. */
export function createProcessRoom(what: string, taken = 0): ProcessRoom {
  let variables = 0;
  const refuse = (why: string) => new PodvmError('invalid', `Cannot run ${what}: ${why}`, { fix });
  const add = (name: string, text: string, bytes: number) => {
    if (text.includes('\0')) {
      throw new PodvmError('invalid', `Cannot run ${what}: ${name} has a NUL byte, which no process can be given`, {
        fix: 'Remove the byte, or mount the value as a file.',
      });
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

/** Bytes that variables, as `NAME=value`, take of the room. */
export const envBytesOf = (env: readonly string[]): number =>
  env.reduce((sum, variable) => sum + Buffer.byteLength(variable) + 1 + pointerBytes, 0);

/** Errors: `invalid` for an empty command, and for one that does not fit beside variables of `envBytes`. */
export function checkCommand(what: string, command: readonly string[], envBytes = 0): void {
  if (command.length === 0 || command[0] === '') {
    throw new PodvmError('invalid', `Cannot run ${what}: no command was given`, { fix: 'Give a command.' });
  }
  const room = createProcessRoom(what, envBytes);
  for (const [at, argument] of command.entries()) room.take(`argument ${at}`, argument);
}

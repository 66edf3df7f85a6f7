import { PodvmError } from '#base/errors.ts';

/** Fixes for errors of the kernel, by code, for any system call. */
export const fixesOfSystemErrors: Readonly<Record<string, string>> = {
  ENOSPC: 'Free space on the file system of the state directory, or choose another directory with --root.',
  EDQUOT: 'Raise the quota of the state directory, or choose another directory with --root.',
  EROFS: 'Make the file system of the state directory writable, or choose another directory with --root.',
};

/** Returns the first fix of the error and its causes, else the one for its system error. */
export function fixOf(error: unknown): string | undefined {
  const chain: Error[] = [];
  for (let e = error; e instanceof Error && chain.length < 8; e = e.cause) chain.push(e);
  const given = chain.find((e) => e instanceof PodvmError && e.fix !== undefined);
  if (given instanceof PodvmError) return given.fix;
  return chain
    .map((e) => fixesOfSystemErrors[(e as NodeJS.ErrnoException).code ?? ''])
    .find((fix) => fix !== undefined); // SAFE: only read
}

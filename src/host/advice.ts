import { PodvmError } from '#base/errors.ts';

export const fixOfShortDescriptors =
  'Raise the limit of podvm (`LimitNOFILE` of its service, `ulimit -n`), or stop some pods.';

/** Fixes for errors of the kernel, by code, for any system call. */
export const fixesOfSystemErrors: Readonly<Record<string, string>> = {
  ENOSPC: 'Free space on the file system of the state directory, or choose another directory with --root.',
  EDQUOT: 'Raise the quota of the state directory, or choose another directory with --root.',
  EROFS: 'Make the file system of the state directory writable, or choose another directory with --root.',
  EMFILE: fixOfShortDescriptors,
};

/** How the C library words these errors, which programs print. */
const words: readonly (readonly [text: string, code: string])[] = [
  ['No space left on device', 'ENOSPC'],
  ['Disk quota exceeded', 'EDQUOT'],
  ['Too many open files', 'EMFILE'],
];

/** Returns the fix for the system error that a program names in its output. */
export function fixOfOutput(output: string): string | undefined {
  const found = words.find(([text]) => output.includes(text));
  return found === undefined ? undefined : fixesOfSystemErrors[found[1]];
}

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

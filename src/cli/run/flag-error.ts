import { PodvmError } from '#base/errors.ts';

/** The error for a value of a flag. `why` ends the sentence. */
export function wrongFlag(flag: string, value: string, why: string, fix: string): PodvmError {
  return new PodvmError('invalid', `Cannot use ${flag} ${value}: ${why}`, { fix });
}

import { PodvmError } from '#base/errors.ts';
import { brokenImageFix } from '../oci.ts';
import type { Fault } from '../tar/tar-bytes.ts';

/** Makes the errors of one layer, counted from 0. */
export function layerFault(index: number): Fault {
  return (reason, cause) =>
    new PodvmError('corrupt', `Cannot use layer ${index + 1} of the image: ${reason}`, {
      ...(cause === undefined ? {} : { cause }),
      fix: brokenImageFix,
    });
}

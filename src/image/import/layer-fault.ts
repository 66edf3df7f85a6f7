import { PodvmError } from '#base/errors.ts';
import { brokenImageFix } from '../oci.ts';
import type { Fault } from '../tar/tar-bytes.ts';

/** What is stored of a layer is no use: what the process that read another image said of it is wrong. It can be fetched. */
export class StoredLayerFault extends PodvmError {}

/** Makes the errors of one layer, counted from 0. */
export const layerFault = (index: number) => faultOf(PodvmError, index);

/** Makes those of what is stored of a layer. */
export const storedLayerFault = (index: number) => faultOf(StoredLayerFault, index);

function faultOf(Made: typeof PodvmError, index: number): Fault {
  return (reason, cause) =>
    new Made('corrupt', `Cannot use layer ${index + 1} of the image: ${reason}`, {
      ...(cause === undefined ? {} : { cause }),
      fix: brokenImageFix,
    });
}

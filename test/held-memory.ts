import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/**
 * What this process holds on to, in bytes: objects and buffers without the garbage, of which it keeps as much as it
 * likes. V8 collects after 64 MiB of dropped buffers, so that resident memory says little about what is held.
 */
export function heldMemory(): number {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

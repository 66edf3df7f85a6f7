import { isAbsolute, normalize } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { SandboxSpec } from '../sandbox.ts';

/**
 * Names the hostPaths, with commas between them, that are block devices or image files whose ext4 the pod's machine
 * mounts for itself. The pod has to say so, as nobody else can have them meanwhile.
 */
export const blockVolumesAnnotation = 'podvm.dev/block-volumes';

const maxPaths = 64;

/** Errors: `invalid`. */
export function blockPathsOf({ namespace, name, annotations }: SandboxSpec): ReadonlySet<string> {
  const value = annotations[blockVolumesAnnotation] ?? '';
  const paths = value
    .split(',')
    .map((path) => path.trim())
    .filter((path) => path !== '');
  const wrong = paths.find((path) => !isAbsolute(path) || normalize(path) !== path);
  if (wrong === undefined && paths.length <= maxPaths) return new Set(paths);
  throw new PodvmError(
    'invalid',
    `Cannot run ${namespace}/${name}: annotation ${blockVolumesAnnotation} must have at most ${maxPaths} absolute ` +
      `paths, got ${JSON.stringify(wrong ?? paths.length)}`,
  );
}

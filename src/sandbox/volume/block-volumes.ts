import { isAbsolute, normalize } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { podAnnotations } from '#base/pod-annotations.ts';
import type { SandboxSpec } from '../sandbox.ts';

const annotation = podAnnotations.blockVolumes.name;

const maxPaths = 64;

/** Paths of the hostPath volumes that the pod wants as disks. Errors: `invalid`. */
export function blockPathsOf({ namespace, name, annotations }: SandboxSpec): ReadonlySet<string> {
  const value = annotations[annotation] ?? '';
  const paths = value
    .split(',')
    .map((path) => path.trim())
    .filter((path) => path !== '');
  const wrong = paths.find((path) => !isAbsolute(path) || normalize(path) !== path);
  if (wrong === undefined && paths.length <= maxPaths) return new Set(paths);
  throw new PodvmError(
    'invalid',
    `Cannot run ${namespace}/${name}: annotation ${annotation} must have at most ${maxPaths} absolute ` +
      `paths, got ${JSON.stringify(wrong ?? paths.length)}`,
    { fix: `Write ${annotation} as absolute paths, separated by commas.` },
  );
}

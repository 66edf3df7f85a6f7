import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import type { Image, PullPolicy } from '../images.ts';

const maxTries = 3;

/**
 * Fetches a damaged image again, by its digest, which identifies it even if its names have moved. A loaded image has no
 * digest. Errors: `corrupt`, and those of the last try.
 */
export async function mendImage(
  reference: string,
  { damaged = 'its file is damaged', digests, references, id }: Image,
  policy: PullPolicy,
  pull: (name: string) => Promise<Image>,
): Promise<Image> {
  const what = `Cannot use image ${reference}: it is damaged: ${damaged}`;
  const name = references[0] ?? digests[0] ?? id;
  if (digests.length === 0) {
    throw new PodvmError('corrupt', `${what}; it was loaded from a file and cannot be fetched again`, {
      fix: 'Load it again with `podvm image load`.',
    });
  }
  if (policy === 'Never') {
    throw new PodvmError('corrupt', what, { fix: `Fetch it again with \`podvm image pull ${name}\`.` });
  }
  let last: unknown;
  for (const digest of nearestFirst(digests, reference).slice(0, maxTries)) {
    try {
      return await pull(digest);
    } catch (error) {
      if (kindOf(error) === 'cancelled') throw error;
      last = error;
    }
  }
  const fix = last instanceof PodvmError ? last.fix : undefined;
  throw new PodvmError(kindOf(last), `${what}; it cannot be fetched again: ${messageOf(last)}`, {
    cause: last,
    fix: fix ?? `Fetch it again with \`podvm image pull ${name}\`.`,
  });
}

/** Sorts digests of the reference's registry first. */
function nearestFirst(digests: readonly string[], reference: string): readonly string[] {
  const repository = (name: string) => name.split('@')[0]?.replace(/:[^/:]*$/, '') ?? name;
  const wanted = repository(reference);
  return digests.toSorted((a, b) => Number(repository(b) === wanted) - Number(repository(a) === wanted));
}

import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import type { Image, PullPolicy } from '../images.ts';

const maxTries = 3;

/**
 * Fetches a damaged image once more: by its digest, so that it is the same one, wherever its names have moved meanwhile.
 * One that was loaded has none. Errors: `corrupt`, and what the last try said.
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
    throw new PodvmError('corrupt', `${what}; it was loaded, so that it cannot be fetched again`, {
      fix: 'Load it once more with `podvm image load`.',
    });
  }
  if (policy === 'Never') {
    throw new PodvmError('corrupt', what, { fix: `Fetch it once more with \`podvm image pull ${name}\`.` });
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
    fix: fix ?? `Fetch it once more with \`podvm image pull ${name}\`.`,
  });
}

/** Those of the registry that the reference names come first. */
function nearestFirst(digests: readonly string[], reference: string): readonly string[] {
  const repository = (name: string) => name.split('@')[0]?.replace(/:[^/:]*$/, '') ?? name;
  const wanted = repository(reference);
  return digests.toSorted((a, b) => Number(repository(b) === wanted) - Number(repository(a) === wanted));
}

import { statSync } from 'node:fs';
import { isImageId, parseReference } from '#base/image-reference.ts';
import { messageOf, PodvmError } from '#base/errors.ts';
import { isUrl } from './read-files.ts';

/** Meaning of the words after `podvm run`. */
export type Named =
  | { readonly kind: 'files'; readonly words: readonly string[] }
  | { readonly kind: 'image'; readonly image: string; readonly words: readonly string[] };

const looksLikePath = (word: string): boolean => isUrl(word) || /^\.{0,2}\/|\.(?:ya?ml|json)$/.test(word);

/** Whether the word names something that can be read as a file, such as a pipe; a directory cannot be read. */
export function isFile(word: string): boolean {
  return statSync(word, { throwIfNoEntry: false })?.isDirectory() === false;
}

/**
 * Tells files from an image by the first word. If it is a file, or looks like a path, all words are files; after an
 * image, the words are its command. Errors: `invalid` for a word that is neither.
 */
export function whatIsNamed(first: string, rest: readonly string[], isThere = isFile): Named {
  if (first === '-' || looksLikePath(first) || isThere(first)) return { kind: 'files', words: [first, ...rest] };
  try {
    if (!isImageId(first)) parseReference(first);
  } catch (error) {
    throw new PodvmError(
      'invalid',
      `Cannot run ${JSON.stringify(first)}: there is no such file, and it is not an image either: ${reasonOf(error)}`,
      { fix: 'Pass readable YAML files, - for standard input, or an image such as nginx or localhost/podvm/base.' },
    );
  }
  const words = rest[0] === '--' ? rest.slice(1) : rest; // as in kubectl, and for `podvm exec`
  return { kind: 'image', image: first, words };
}

/** The reason why the reference is invalid: the message without its beginning. */
const reasonOf = (error: unknown): string => messageOf(error).replace(/^Cannot use image reference .*?: /, '');

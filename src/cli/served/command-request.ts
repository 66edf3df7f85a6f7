import { isUtf8 } from 'node:buffer';

/** A command line that a caller (`caller.c`) has handed to a node, with what decides its meaning. */
export interface CommandRequest {
  /** Names the build of the caller's program. */
  readonly key: string;
  /** The caller's mount namespace, as /proc names it: files have the same paths only in the same one. */
  readonly mountNamespace: string;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  /** The command line without the program. */
  readonly words: readonly string[];
  /** Those that name something in the caller's working directory which can be read as a file. */
  readonly fileWords: ReadonlySet<string>;
  readonly environment: Readonly<Record<string, string>>;
}

/** Largest request in bytes, as in `caller.c`. */
const maxBytes = 2 ** 20;
/**
 * Longest command line: a node does nothing else while it examines one, and some expressions take the square of a word's length.
 */
const maxWordChars = 8192;

/** Reads a request, each part of which ends with a NUL. Returns undefined for any other bytes, such as text that is not UTF-8. */
export function parseCommandRequest(bytes: Uint8Array): CommandRequest | undefined {
  if (bytes.length > maxBytes || !isUtf8(bytes)) return undefined;
  const [key, mountNamespace, marks = '', ...rest] = Buffer.from(bytes).toString('utf8').split('\0');
  if (key === undefined || mountNamespace === undefined || !/^[01]{2,}$/.test(marks)) return undefined;
  const count = marks.length - 2;
  if (rest.pop() !== '' || rest.length < count) return undefined;
  const words = rest.slice(0, count);
  if (words.reduce((sum, { length }) => sum + length, 0) > maxWordChars) return undefined;
  return {
    key,
    mountNamespace,
    stdoutIsTerminal: marks[0] === '1',
    stderrIsTerminal: marks[1] === '1',
    words,
    fileWords: new Set(words.filter((_, at) => marks[at + 2] === '1')),
    environment: Object.fromEntries(rest.slice(count).map(variableOf)),
  };
}

function variableOf(entry: string): readonly [name: string, value: string] {
  const at = entry.indexOf('=');
  return at < 0 ? [entry, ''] : [entry.slice(0, at), entry.slice(at + 1)];
}

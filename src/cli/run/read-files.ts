import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { messageOf, PodvmError } from '#base/errors.ts';
import { maxFileChars, maxFiles, maxRunChars, type RunRequestInput } from '#api/run.ts';
import type { Terminal } from '../terminal/terminal.ts';

/** Limit in bytes: a character has at least one byte, or two in UTF-16. */
const maxFileBytes = 2 * maxFileChars;

/** Time for the whole answer of a web server, in `ms`. */
const fetchMs = 60_000;

/** Whether the word is the address of a file on a web server. */
export const isUrl = (word: string): boolean => /^https?:\/\//i.test(word);

/** Reads the manifests of the command line as text; `-` is standard input. Errors: `invalid`, `unavailable`. */
export async function readFiles(names: readonly string[], terminal: Terminal): Promise<RunRequestInput['files']> {
  if (names.length > maxFiles) {
    throw new PodvmError('invalid', `Cannot read ${names.length} files: one command takes at most ${maxFiles}`, {
      fix: 'Join files, with a line of --- between them, or pass them to several commands.',
    });
  }
  const files = [];
  let chars = 0;
  for (const name of names) {
    const shown = name === '-' ? '<stdin>' : name;
    const text = await readText(shown, await streamOf(name, terminal));
    chars += text.length;
    if (text.length > maxFileChars) throw tooLarge(shown, `it must have at most ${maxFileChars} characters`);
    if (chars > maxRunChars) {
      throw tooLarge(shown, `all files together must have at most ${maxRunChars} characters`);
    }
    files.push({ name: shown, text });
  }
  return files;
}

async function streamOf(name: string, { stdin }: Terminal): Promise<Readable> {
  if (name === '-') return stdin;
  return isUrl(name) ? await fetched(name) : createReadStream(name);
}

async function fetched(url: string): Promise<Readable> {
  let why: string;
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(fetchMs) });
    if (answer.ok && answer.body !== null) return Readable.from(answer.body);
    why = `the server answers ${answer.status}`;
    await answer.body?.cancel(); // this process would not end before the rest of it
  } catch (error) {
    // Node's own message is "fetch failed".
    why = messageOf(error instanceof TypeError && error.cause !== undefined ? error.cause : error);
  }
  throw new PodvmError('unavailable', `Cannot read ${url}: ${why}`, {
    fix: 'Check the address, or download the file and pass its name.',
  });
}

/** Replaces each directory by the manifests in it, not in those below it, in the order of their names. Errors: `invalid`. */
export async function manifestsIn(names: readonly string[]): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of names) {
    if (name === '-' || isUrl(name) || !(await isDirectory(name))) {
      found.push(name);
      continue;
    }
    const inside = (await readdir(name)).filter((entry) => /\.(ya?ml|json)$/.test(entry)).toSorted();
    if (inside.length === 0) {
      throw new PodvmError('invalid', `Cannot read ${name}: the directory has no .yaml, .yml or .json file`, {
        fix: 'Pass a directory with manifests, or the files.',
      });
    }
    found.push(...inside.map((entry) => join(name, entry)));
  }
  return found;
}

const isDirectory = async (path: string): Promise<boolean> =>
  await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

const readableFix = 'Pass readable YAML files, or - for standard input.';
const splitFix = 'Split the files and run them one by one, or remove other objects than Pods, ConfigMaps and Secrets.';

/** Reads one text up to the limit of a file. `name` is shown in errors. `fix`: for one that is no manifest. Errors: `invalid`. */
export async function readText(name: string, stream: Readable, fix?: string): Promise<string> {
  return decoded(name, await bytesOf(name, stream, fix));
}

function tooLarge(name: string, why: string, fix = splitFix): PodvmError {
  return new PodvmError('invalid', `Cannot read ${name}: ${why}`, { fix });
}

/** Reads up to the limit, also from a pipe or a device. */
async function bytesOf(name: string, stream: Readable, fix?: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > maxFileBytes) throw tooLarge(name, `it must have at most ${maxFileBytes} bytes`, fix);
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof PodvmError) throw error;
    throw unreadable(name, error as NodeJS.ErrnoException, fix ?? readableFix); // SAFE: Node's streams throw system errors
  }
  return Buffer.concat(chunks);
}

const whyUnreadable: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
};

/** Omits the cause, whose message would repeat the reason. */
function unreadable(name: string, { code = '', message }: NodeJS.ErrnoException, fix: string): PodvmError {
  return new PodvmError('invalid', `Cannot read ${name}: ${whyUnreadable[code] ?? message}`, {
    fix,
  });
}

/** YAML encodings (1.2, 5.2) that go-yaml supports, by their byte order mark. */
const marks: readonly (readonly [string, readonly number[]])[] = [
  ['utf-8', [0xef, 0xbb, 0xbf]],
  ['utf-16le', [0xff, 0xfe]],
  ['utf-16be', [0xfe, 0xff]],
];

function decoded(name: string, bytes: Buffer): string {
  const encoding = marks.find(([, mark]) => mark.every((byte, index) => bytes[index] === byte))?.[0] ?? 'utf-8';
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new PodvmError('invalid', `Cannot read ${name}: it is not ${encoding.toUpperCase()} text`, {
      fix: 'Save the file as UTF-8.',
    });
  }
}

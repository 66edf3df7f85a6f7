/** Files of a container, which its own programs list: `sh`, `stat` and `head`, as `podvm cp` needs its `tar`. */

export interface FileEntry {
  readonly name: string;
  /** `directory` and `file` also stand for links to one. */
  readonly kind: 'directory' | 'file' | 'other';
  /** False: the name is no UTF-8, so that no command can have it. */
  readonly isNamable: boolean;
  /** Absent where `stat` did not tell them. */
  readonly details?: FileDetails;
}

export interface FileDetails {
  /** As `ls` writes it: `drwxr-xr-x`. */
  readonly mode: string;
  readonly sizeBytes: number;
  /** Time of the last change, in `s` since 1970. */
  readonly changedSeconds: number;
}

/** Most entries of a directory that are shown. */
export const maxEntries = 1000;
/** Most bytes of a listing: names of 255 bytes, each with its details. */
export const maxListingBytes = maxEntries * 512;

/**
 * Writes the entries of a directory: `d`, `f` or `o` and `./NAME` with a zero byte after each, an empty one, and then a
 * line of `stat` for each. Only shell built-ins and one program, which take a moment in any container.
 */
const listScript = `cd -- "$1" || exit 1
max=$2
shift 2
for file in .[!.]* ..?* *; do
  if [ -d "$file" ]; then kind=d
  elif [ -f "$file" ]; then kind=f
  elif [ -e "$file" ] || [ -L "$file" ]; then kind=o
  else continue
  fi
  set -- "$@" "./$file"
  printf '%s\\0' "$kind./$file"
  if [ "$#" -gt "$max" ]; then break; fi
done
printf '\\0'
if [ "$#" -gt 0 ]; then stat -c '%f %s %Y' -- "$@"; fi
exit 0`;

export const listCommand = (path: string): readonly string[] => ['sh', '-c', listScript, 'sh', path, `${maxEntries}`];

const readScript = `if [ ! -f "$1" ]; then echo "$1 is not a file with content" >&2; exit 1; fi
exec head -c "$2" -- "$1"`;

/** Writes the first bytes of a file; pipes and devices are refused, since they may never end. */
export const readCommand = (path: string, bytes: number): readonly string[] => [
  ...['sh', '-c', readScript, 'sh', path],
  String(bytes),
];

const kinds: Readonly<Record<string, FileEntry['kind']>> = { d: 'directory', f: 'file', o: 'other' };

/** Reads what `listCommand` has written. The container may have written anything. */
export function parseListing(bytes: Uint8Array): {
  readonly entries: readonly FileEntry[];
  /** Whether the directory has more. */
  readonly isCut: boolean;
} {
  const names: { readonly name: string; readonly kind: FileEntry['kind']; readonly isNamable: boolean }[] = [];
  let at = 0;
  for (;;) {
    const end = bytes.indexOf(0, at);
    if (end <= at) break; // the empty one, or none
    const { text, isNamable } = decoded(bytes.subarray(at, end));
    const kind = kinds[text.slice(0, 1)];
    const name = text.slice('d./'.length);
    at = end + 1;
    const isName = name !== '' && name !== '.' && name !== '..' && !name.includes('/');
    if (kind !== undefined && isName) names.push({ name, kind, isNamable });
  }
  const lines = new TextDecoder()
    .decode(bytes.subarray(at + 1))
    .split('\n')
    .slice(0, -1);
  const entries = names.map((entry, index) => {
    const details = lines.length === names.length ? detailsOf(lines[index] ?? '') : undefined;
    return details === undefined ? entry : { ...entry, details };
  });
  const byName = (one: FileEntry, other: FileEntry) =>
    Number(other.kind === 'directory') - Number(one.kind === 'directory') || (one.name < other.name ? -1 : 1);
  return { entries: entries.slice(0, maxEntries).toSorted(byName), isCut: names.length > maxEntries };
}

function decoded(bytes: Uint8Array): { readonly text: string; readonly isNamable: boolean } {
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes), isNamable: true };
  } catch {
    return { text: new TextDecoder().decode(bytes), isNamable: false };
  }
}

function detailsOf(line: string): FileDetails | undefined {
  const [, mode = '', size, changed] = /^([0-9a-f]{1,8}) (\d{1,15}) (-?\d{1,12})$/.exec(line) ?? [];
  if (size === undefined || changed === undefined) return undefined;
  return { mode: modeText(Number.parseInt(mode, 16)), sizeBytes: Number(size), changedSeconds: Number(changed) };
}

const types: Readonly<Record<number, string>> = {
  ...{ 0x1: 'p', 0x2: 'c', 0x4: 'd', 0x6: 'b' },
  ...{ 0x8: '-', 0xa: 'l', 0xc: 's' },
};

/** Formats a mode of inode(7) as `ls` does. */
export function modeText(mode: number): string {
  const special = [0o4000, 0o2000, 0o1000];
  const rights = [6, 3, 0].map((shift, who) => {
    const bits = (mode >> shift) & 7;
    const isSpecial = (mode & (special[who] ?? 0)) !== 0;
    const letter = who === 2 ? 't' : 's';
    const last = isSpecial ? ((bits & 1) === 1 ? letter : letter.toUpperCase()) : (bits & 1) === 1 ? 'x' : '-';
    return `${(bits & 4) === 4 ? 'r' : '-'}${(bits & 2) === 2 ? 'w' : '-'}${last}`;
  });
  return `${types[mode >> 12] ?? '?'}${rights.join('')}`;
}

/** The absolute path without `.`, `..` and repeated slashes. */
export function normalPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}

export const pathIn = (directory: string, name: string): string =>
  directory === '/' ? `/${name}` : `${directory}/${name}`;

export const parentOf = (path: string): string => normalPath(`${path}/..`);

/** Bytes at the beginning that tell text from other content. */
const lookedAt = 8192;

/** A file's text, or undefined if it is not text. A character that the end cuts is left out. */
export function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.subarray(0, lookedAt).includes(0)) return undefined;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: true });
  } catch {
    return undefined;
  }
}

import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { conflistSchema, knownVersions, maxConflistBytes, singleSchema, type Conflist } from './cni-schema.ts';

/** A configuration, and the file that it is from. */
export interface ConfiguredNetwork {
  readonly path: string;
  readonly conflist: Conflist;
}

/** What go-cni, and so containerd, takes for a configuration; the two others than a list name a single plugin. */
const extensions = ['.conflist', '.conf', '.json'];

/**
 * The first configuration of the directory by name, as other runtimes choose; undefined when there is none, or no
 * directory. Read anew each time, so that whoever installs or removes a cluster network is followed at once. Errors:
 * `failedPrecondition` when it is not valid (a file that was meant must not be passed over in silence).
 */
export async function readNetwork(directory: string): Promise<ConfiguredNetwork | undefined> {
  const entries = await readdir(directory, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return [];
    throw new PodvmError('failedPrecondition', `Cannot read the CNI configurations in ${directory}`, { cause });
  });
  const files = entries.filter((entry) => !entry.isDirectory() && extensions.includes(extname(entry.name)));
  const [first] = files.map(({ name }) => name).sort();
  if (first === undefined) return undefined;
  const path = join(directory, first);
  return { path, conflist: parse(path, await readText(path)) };
}

/** As `readNetwork`, of a directory that must hold one. Errors: `failedPrecondition` also when there is none. */
export async function requireNetwork(directory: string): Promise<ConfiguredNetwork> {
  const found = await readNetwork(directory);
  if (found !== undefined) return found;
  throw new PodvmError(
    'failedPrecondition',
    `Cannot connect a pod to a network: no CNI configuration (*.conflist) in ${directory}`,
    {
      fix: 'Install a cluster network (it writes one there), or set cniConfig to built-in.',
    },
  );
}

const unusable = (path: string, reason: string, cause?: unknown) =>
  new PodvmError('failedPrecondition', `Cannot use CNI configuration ${path}: ${reason}`, {
    cause,
    fix: 'Correct the file or take it away; it is read anew for the next pod.',
  });

/** Whatever lies there: a device or a pipe is not waited for, and no more is read than a configuration may have. */
async function readText(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw unusable(path, 'it cannot be opened', cause);
  });
  try {
    const found = await file.stat();
    if (!found.isFile()) throw unusable(path, 'no regular file');
    if (found.size > maxConflistBytes) throw unusable(path, `more than ${maxConflistBytes} bytes`);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

function parse(path: string, text: string): Conflist {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw unusable(path, 'not JSON', cause);
  }
  const conflist = extname(path) === '.conflist' ? withNewestVersion(value) : listOfOne(path, value);
  const parsed = v.safeParse(conflistSchema, conflist);
  if (!parsed.success) throw unusable(path, v.summarize(parsed.issues).slice(0, 300));
  return parsed.output;
}

/** A single plugin's configuration, from before there were lists. */
function listOfOne(path: string, value: unknown): unknown {
  const parsed = v.safeParse(singleSchema, value);
  if (!parsed.success) throw unusable(path, v.summarize(parsed.issues).slice(0, 300));
  const { name, cniVersion } = parsed.output;
  return { name, cniVersion, plugins: [parsed.output] };
}

/** Spec 1.1: of `cniVersions` and `cniVersion`, the newest that the runtime knows. */
function withNewestVersion(value: unknown): unknown {
  const parsed = v.safeParse(
    v.looseObject({ cniVersion: v.optional(v.string()), cniVersions: v.array(v.string()) }),
    value,
  );
  if (!parsed.success) return value;
  const offered = [...parsed.output.cniVersions, parsed.output.cniVersion];
  const newest = knownVersions.findLast((version) => offered.includes(version));
  return newest === undefined ? value : { ...parsed.output, cniVersion: newest };
}

import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { conflistSchema, knownVersions, maxConflistBytes, singleSchema, type Conflist } from './cni-schema.ts';

/** A configuration and the path of its file. */
export interface ConfiguredNetwork {
  readonly path: string;
  readonly conflist: Conflist;
}

/** Extensions that go-cni, and so containerd, accepts; `.conf` and `.json` files hold a single plugin. */
const extensions = ['.conflist', '.conf', '.json'];

/**
 * The first configuration of the directory by name, as in other runtimes; undefined when there is no configuration or no
 * directory. Read for each pod, so that an installed or removed cluster network takes effect at once. Errors:
 * `failedPrecondition` when it is not valid (an invalid file is never skipped silently).
 */
export async function readNetwork(directory: string): Promise<ConfiguredNetwork | undefined> {
  const entries = await readdir(directory, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return [];
    throw new PodvmError('failedPrecondition', `Cannot read the CNI configurations in ${directory}`, {
      cause,
      fix: 'Set cniConfig to a directory that podvm may read, or to built-in.',
    });
  });
  const files = entries.filter((entry) => !entry.isDirectory() && extensions.includes(extname(entry.name)));
  const [first] = files.map(({ name }) => name).sort();
  if (first === undefined) return undefined;
  const path = join(directory, first);
  return { path, conflist: parse(path, await readText(path)) };
}

/** Like `readNetwork`. Errors: `failedPrecondition` also when the directory holds no configuration. */
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
    fix: 'Correct or remove the file; it is read again for the next pod.',
  });

/** Does not block on a device or a pipe, and reads no more than a configuration may hold. */
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

/** Converts the configuration of a single plugin, which is older than lists. */
function listOfOne(path: string, value: unknown): unknown {
  const parsed = v.safeParse(singleSchema, value);
  if (!parsed.success) throw unusable(path, v.summarize(parsed.issues).slice(0, 300));
  const { name, cniVersion } = parsed.output;
  return { name, cniVersion, plugins: [parsed.output] };
}

/** Sets the newest version known here of `cniVersions` and `cniVersion` (spec 1.1). */
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

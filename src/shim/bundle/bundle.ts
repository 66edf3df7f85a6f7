import { open } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { type OciSpec, specSchema } from './oci-spec.ts';

/** A directory in which containerd describes one container to its runtime. */
export interface Bundle {
  readonly path: string;
  /** Containerd's namespace, such as `k8s.io`. */
  readonly namespace: string;
  readonly spec: OciSpec;
  /** Socket for the container's events; undefined: they are not sent. */
  readonly eventsSocket: string | undefined;
}

/** A seccomp profile takes about 20 KiB; etcd limits a whole pod to 1.5 MiB. */
const maxSpecBytes = 8 * 1024 * 1024;
/** The launcher writes it (`launcher.ts`). */
export const eventsFile = 'podvm-events';

/** Reads the bundle of a container. Errors: `invalid`. */
export async function readBundle(path: string, id: string): Promise<Bundle> {
  if (!isAbsolute(path) || basename(path) !== id) {
    throw new PodvmError('invalid', `Cannot use the bundle ${printable(path)}: it is not that of ${printable(id)}`);
  }
  const socket = (await readFileIfThere(join(path, eventsFile)))?.trim();
  return {
    path,
    namespace: basename(dirname(path)),
    spec: parse(specSchema, await readSpec(join(path, 'config.json')), `the bundle ${path}`),
    eventsSocket: socket === undefined || socket === '' ? undefined : socket.replace(/^unix:\/\//, ''),
  };
}

async function readSpec(path: string): Promise<string> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    if (size <= maxSpecBytes) return await file.readFile('utf8');
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot read ${printable(path)}`, { cause });
  }
  throw new PodvmError('invalid', `Cannot read ${printable(path)}: it is larger than ${maxSpecBytes} bytes`);
}

/** Parses JSON of containerd's. `what` names it in the error. Errors: `invalid`. */
export function parse<Schema extends v.GenericSchema>(
  schema: Schema,
  json: string,
  what: string,
): v.InferOutput<Schema> {
  try {
    return v.parse(schema, JSON.parse(json));
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot use ${printable(what)}: it is not as the OCI runtime specification says`, {
      cause,
    });
  }
}

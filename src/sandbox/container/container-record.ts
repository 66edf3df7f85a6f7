import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { guestText, rawText } from '#base/guest-text.ts';
import { replaceFile } from '#host/file/files.ts';
import { processIdentitySchema } from '#host/process/process-identity.ts';
import { resourcesSchema } from '../recovery/spec-record.ts';
import type { ContainerExit, ContainerSpec, ContainerStatus } from '../sandbox.ts';
import type { HeldSource } from '../volume/host-mode.ts';

const modes = ['scratch', 'tmpfs', 'push', 'share', 'image', 'block'] as const;

const sourceSchema = v.object({
  kind: v.picklist(['host', 'image', 'device']),
  mode: v.picklist(modes),
  key: v.string(),
  path: v.exactOptional(v.string()),
  guest: v.object({
    volume: v.string(),
    subPath: v.exactOptional(v.string()),
    readOnly: v.exactOptional(v.boolean()),
  }),
  server: v.exactOptional(
    v.object({
      ...processIdentitySchema.entries,
      descriptors: v.number(),
      file: v.exactOptional(v.string()),
    }),
  ),
  block: v.exactOptional(
    v.object({
      serial: v.string(),
      sizeBytes: v.number(),
      claim: v.object({
        path: v.string(),
        readOnly: v.boolean(),
        device: v.object({ major: v.number(), minor: v.number() }),
        image: v.exactOptional(v.object({ loop: v.string(), identity: v.string() })),
        keeper: processIdentitySchema,
      }),
    }),
  ),
});

const recordSchema = v.object({
  version: v.literal(2),
  id: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/)),
  /** Without its command and variables, which may be secret and which the guest has. */
  spec: v.object({
    name: v.string(),
    attempt: v.number(),
    image: v.string(),
    tty: v.boolean(),
    stdin: v.boolean(),
    resources: resourcesSchema,
    terminationMessagePath: v.exactOptional(v.string()),
    logPath: v.exactOptional(v.string()),
    outputFifos: v.exactOptional(
      v.object({ stdout: v.exactOptional(v.string()), stderr: v.exactOptional(v.string()) }),
    ),
  }),
  imageId: v.string(),
  stopSignal: v.number(),
  envBytes: v.exactOptional(v.number()),
  user: v.exactOptional(v.object({ uid: v.number(), gid: v.number(), groups: v.array(v.number()) })),
  mounts: v.array(v.object({ mountPath: v.string(), mode: v.picklist(modes) })),
  sources: v.array(sourceSchema),
  createdAt: v.string(),
  startedAt: v.exactOptional(v.string()),
  exit: v.exactOptional(
    v.object({
      exitCode: v.number(),
      signal: v.exactOptional(v.number()),
      reason: v.picklist(['Completed', 'Error', 'OOMKilled', 'StartError', 'SandboxFailed']),
      why: v.exactOptional(v.string()),
      message: v.exactOptional(v.string()),
      finishedAt: v.string(),
    }),
  ),
});

/** State of a container that the next process needs and cannot get from the guest. */
export type ContainerRecord = Readonly<v.InferOutput<typeof recordSchema>>;

/** The part of a spec that is recorded. */
export type KeptSpec = Pick<ContainerSpec, keyof ContainerRecord['spec']>;

interface KeptContainer extends Pick<
  ContainerStatus,
  'id' | 'imageId' | 'createdAt' | 'startedAt' | 'user' | 'mounts' | 'exit'
> {
  readonly spec: KeptSpec;
  readonly stopSignal: number;
  readonly envBytes?: number;
  readonly sources: readonly HeldSource[];
}

export function containerRecordOf(container: KeptContainer): ContainerRecord {
  const { id, imageId, createdAt, startedAt, user, mounts, exit, spec, stopSignal, envBytes, sources } = container;
  return {
    version: 2,
    ...{ id, imageId, stopSignal },
    spec: keptSpecOf(spec),
    ...(envBytes === undefined ? {} : { envBytes }),
    ...(user === undefined ? {} : { user: { ...user, groups: [...user.groups] } }),
    mounts: [...mounts],
    sources: sources.map((source): ContainerRecord['sources'][number] => ({ ...source, guest: guestOf(source) })),
    createdAt: createdAt.toISOString(),
    ...(startedAt === undefined ? {} : { startedAt: startedAt.toISOString() }),
    ...(exit === undefined ? {} : { exit: exitRecordOf(exit) }),
  };
}

function guestOf({ guest: { volume, subPath, readOnly } }: HeldSource): ContainerRecord['sources'][number]['guest'] {
  return {
    volume,
    ...(subPath === undefined ? {} : { subPath }),
    ...(readOnly === undefined ? {} : { readOnly }),
  };
}

function exitRecordOf({ message, finishedAt, ...exit }: ContainerExit): NonNullable<ContainerRecord['exit']> {
  const text = message === undefined ? {} : { message: rawText(message) };
  return { ...exit, ...text, finishedAt: finishedAt.toISOString() };
}

export function exitOf({ message, finishedAt, ...exit }: NonNullable<ContainerRecord['exit']>): ContainerExit {
  const text = message === undefined ? {} : { message: guestText(message) };
  return { ...exit, ...text, finishedAt: new Date(finishedAt) };
}

function keptSpecOf(spec: KeptSpec): ContainerRecord['spec'] {
  const { name, attempt, image, tty, stdin, resources, terminationMessagePath, logPath, outputFifos } = spec;
  return {
    ...{ name, attempt, image, tty, stdin, resources },
    ...(terminationMessagePath === undefined ? {} : { terminationMessagePath }),
    ...(logPath === undefined ? {} : { logPath }),
    ...(outputFifos === undefined ? {} : { outputFifos }),
  };
}

const fileName = 'container.json';

/** The records of one sandbox's containers. Each has its own directory, together with the position of its log. */
export class ContainerRecords {
  readonly #root: string;

  constructor(sandboxDirectory: string) {
    this.#root = join(sandboxDirectory, 'containers');
  }

  /** Makes the container's directory if needed. */
  async logPositionPath(id: string): Promise<string> {
    await mkdir(this.#directory(id), { recursive: true, mode: 0o700 });
    return join(this.#directory(id), 'log-position.json');
  }

  async save(record: ContainerRecord): Promise<void> {
    await mkdir(this.#directory(record.id), { recursive: true, mode: 0o700 });
    await replaceFile(join(this.#directory(record.id), fileName), `${JSON.stringify(record)}\n`);
  }

  async remove(id: string): Promise<void> {
    await rm(this.#directory(id), { recursive: true, force: true });
  }

  /**
   * Oldest first. A directory without a record, of a container that was not made yet, is left out. Errors: `corrupt`.
   */
  async list(): Promise<readonly ContainerRecord[]> {
    const records: ContainerRecord[] = [];
    for (const id of await readdir(this.#root).catch(() => [])) {
      const path = join(this.#directory(id), fileName);
      const text = await readFile(path, 'utf8').catch(() => undefined);
      if (text !== undefined) records.push(parse(path, text));
    }
    return records.sort((a, b) => a.createdAt.localeCompare(b.createdAt));
  }

  #directory(id: string): string {
    return join(this.#root, id);
  }
}

function parse(path: string, text: string): ContainerRecord {
  try {
    return v.parse(recordSchema, JSON.parse(text));
  } catch (cause) {
    throw new PodvmError('corrupt', `Cannot read the record of a container: ${path} is damaged`, {
      cause,
      fix: 'Delete the pod, which removes the record, and create it again.',
    });
  }
}

import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { create, fromJson, type JsonValue, toJson } from '@bufbuild/protobuf';
import * as v from 'valibot';
import { replaceFile } from '#host/files.ts';
import type { Log } from '#host/log.ts';
import type { KnownContainer, KnownPod } from './known-pods.ts';
import { ContainerConfigSchema, LinuxContainerResourcesSchema, PodSandboxConfigSchema } from './schema/api_pb.ts';

const json = v.custom<JsonValue>((value) => value !== undefined);
const recordSchema = v.object({
  version: v.literal(1),
  runtimeHandler: v.string(),
  config: json,
  containers: v.array(v.object({ id: v.string(), config: json, resources: v.exactOptional(json) })),
});

export interface PodRecord extends Pick<KnownPod, 'config' | 'runtimeHandler'> {
  readonly containers: ReadonlyMap<string, Pick<KnownContainer, 'config' | 'resources'>>;
}

/**
 * Configurations of pods from their clients, recorded for the next process in one file each. Commands and variables of
 * containers are left out because they may be secret.
 */
export class PodRecords {
  readonly #directory: string;
  readonly #log: Log;
  readonly #last = new Map<string, Promise<void>>();

  constructor(directory: string, log: Log) {
    this.#directory = directory;
    this.#log = log;
  }

  /**
   * Settles when the record is written or has failed, which is logged; the next process then knows less about the pod.
   */
  save(pod: KnownPod): Promise<void> {
    const { id } = pod.sandbox;
    return this.#inTurn(id, async () => {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await replaceFile(this.#path(id), `${JSON.stringify(recordOf(pod))}\n`);
    });
  }

  remove(id: string): Promise<void> {
    return this.#inTurn(id, () => rm(this.#path(id), { force: true }));
  }

  /** Returns the records by sandbox id. An invalid one is logged and left out. */
  async load(): Promise<ReadonlyMap<string, PodRecord>> {
    const records = new Map<string, PodRecord>();
    for (const file of await readdir(this.#directory).catch(() => [])) {
      if (!file.endsWith('.json')) continue;
      const id = file.slice(0, -'.json'.length);
      try {
        records.set(id, parse(await readFile(this.#path(id), 'utf8')));
      } catch (error) {
        this.#log.error('record of a pod not read', error, { sandbox: id });
      }
    }
    return records;
  }

  #inTurn(id: string, act: () => Promise<void>): Promise<void> {
    const mine = (this.#last.get(id) ?? Promise.resolve()).then(act).catch((error: unknown) => {
      this.#log.error('record of a pod not written', error, { sandbox: id });
    });
    this.#last.set(id, mine);
    void mine.then(() => {
      if (this.#last.get(id) === mine) this.#last.delete(id);
    });
    return mine;
  }

  #path(id: string): string {
    return join(this.#directory, `${id}.json`);
  }
}

function recordOf({ config, runtimeHandler, containers }: KnownPod): v.InferOutput<typeof recordSchema> {
  return {
    version: 1,
    runtimeHandler,
    config: toJson(PodSandboxConfigSchema, config),
    containers: [...containers].map(([id, { config: given, resources }]) => ({
      id,
      config: toJson(
        ContainerConfigSchema,
        create(ContainerConfigSchema, { ...given, command: [], args: [], envs: [] }),
      ),
      ...(resources === undefined ? {} : { resources: toJson(LinuxContainerResourcesSchema, resources) }),
    })),
  };
}

function parse(text: string): PodRecord {
  const { runtimeHandler, config, containers } = v.parse(recordSchema, JSON.parse(text));
  return {
    runtimeHandler,
    config: fromJson(PodSandboxConfigSchema, config),
    containers: new Map(
      containers.map(({ id, config: given, resources }) => [
        id,
        {
          config: fromJson(ContainerConfigSchema, given),
          resources: resources === undefined ? undefined : fromJson(LinuxContainerResourcesSchema, resources),
        },
      ]),
    ),
  };
}

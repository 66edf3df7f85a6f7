import { create, fromJson, type JsonValue, toJson } from '@bufbuild/protobuf';
import * as v from 'valibot';
import type { Log } from '#host/log/log.ts';
import { RecordFiles } from '#host/file/record-files.ts';
import type { KnownContainer, KnownPod } from './known-pods.ts';
import { ContainerConfigSchema, LinuxContainerResourcesSchema, PodSandboxConfigSchema } from './schema/api_pb.ts';

const json = v.custom<JsonValue>((value) => value !== undefined);
const recordSchema = v.object({
  version: v.literal(1),
  runtimeHandler: v.string(),
  config: json,
  containers: v.array(v.object({ id: v.string(), config: json, resources: v.exactOptional(json) })),
});
type Recorded = v.InferOutput<typeof recordSchema>;

export interface PodRecord extends Pick<KnownPod, 'config' | 'runtimeHandler'> {
  readonly containers: ReadonlyMap<string, Pick<KnownContainer, 'config' | 'resources'>>;
}

/**
 * Configurations of pods from their clients, recorded for the next process in one file each. Commands and variables of
 * containers are left out because they may be secret.
 */
export class PodRecords {
  readonly #files: RecordFiles<Recorded, PodRecord>;

  constructor(directory: string, log: Log) {
    this.#files = new RecordFiles({ directory, what: 'a pod', parse, log });
  }

  /**
   * Settles when the record is written or has failed, which is logged; the next process then knows less about the pod. The
   * record of a pod that is left alone stays as it is, for the podvm that can take it over.
   */
  save(pod: KnownPod): Promise<void> {
    if (pod.sandbox.status.leftAlone !== undefined) return Promise.resolve();
    return this.#files.save(pod.sandbox.id, recordOf(pod));
  }

  remove(id: string): Promise<void> {
    return this.#files.remove(id);
  }

  /** Returns the records by sandbox id. An invalid one is logged and left out. */
  async load(): Promise<ReadonlyMap<string, PodRecord>> {
    return await this.#files.load();
  }
}

function recordOf({ config, runtimeHandler, containers }: KnownPod): Recorded {
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

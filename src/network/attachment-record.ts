import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { readFileIfThere } from '#host/file/files.ts';
import { conflistSchema, resultSchema } from './cni/cni-schema.ts';

/**
 * Record with which an attachment can be undone after the process that made it was killed. Written before each step
 * that makes something, so that everything that exists has a record.
 */
export const sandboxIdSchema = v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,40}$/));

export const hostPortSchema = v.object({
  hostPort: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
  containerPort: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
  protocol: v.picklist(['TCP', 'UDP', 'SCTP']),
  hostIP: v.exactOptional(v.string()),
});

const list = <T extends v.GenericSchema>(item: T) => v.pipe(v.array(item), v.readonly());
const strings = list(v.string());

const guestNetworkSchema = v.object({
  interfaces: list(v.object({ name: v.string(), mac: v.string(), mtu: v.number(), addresses: strings })),
  routes: list(v.object({ destination: v.string(), gateway: v.exactOptional(v.string()) })),
  dns: v.object({
    nameservers: strings,
    searches: strings,
    options: strings,
  }),
});

export const recordSchema = v.object({
  version: v.literal(1),
  sandboxId: sandboxIdSchema,
  podName: v.string(),
  podNamespace: v.string(),
  podUid: v.string(),
  mode: v.picklist(['cni', 'given', 'none']),
  hostPorts: list(hostPortSchema),
  tapOwnerUid: v.number(),
  mac: v.string(),
  /** Whether only its tap is in the netns, and its VMM in another: with `given`, for a machine that waited for a pod. */
  isMoved: v.exactOptional(v.boolean()),
  /** Whether the pod's annotation asks for link-local services; only on the built-in network. */
  reachesMetadata: v.exactOptional(v.boolean()),
  /** Whether the guest's frames are filtered; absent until joined, and on configured networks. */
  isFiltered: v.exactOptional(v.boolean()),
  /** Whether only frames with loopback addresses are dropped, as on configured networks. */
  dropsLoopback: v.exactOptional(v.boolean()),
  /** The chain as it was when `connect` began: DEL must see what ADD saw. */
  conflist: v.exactOptional(conflistSchema),
  /** The `runtimeConfig` that the chain's plugins got about the pod; DEL gets the same. */
  capabilities: v.exactOptional(v.record(v.string(), v.unknown())),
  /** The result of ADD. */
  added: v.exactOptional(resultSchema),
  /** Present once connected. */
  guest: v.exactOptional(guestNetworkSchema),
});
export type AttachmentRecord = Readonly<v.InferOutput<typeof recordSchema>>;

/** One file per attachment in a directory. */
export class AttachmentRecords {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Does not fsync: netns do not survive a power cut either, and `collect` finds addresses that were reserved then. The
   * rename prevents a half-written record when the process is killed.
   */
  async write(record: AttachmentRecord): Promise<void> {
    const path = this.#path(record.sandboxId);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    try {
      await writeFile(`${path}.tmp`, `${JSON.stringify(record)}\n`, { mode: 0o600 });
      await rename(`${path}.tmp`, path);
    } catch (error) {
      await rm(`${path}.tmp`, { force: true });
      throw error;
    }
  }

  /** Undefined when there is no record or it cannot be parsed. */
  async read(sandboxId: string): Promise<AttachmentRecord | undefined> {
    const text = await readFileIfThere(this.#path(sandboxId));
    if (text === undefined) return undefined;
    try {
      const parsed = v.safeParse(recordSchema, JSON.parse(text));
      return parsed.success ? parsed.output : undefined;
    } catch {
      return undefined; // torn by a power cut, which also removed its netns
    }
  }

  async remove(sandboxId: string): Promise<void> {
    await Promise.all([
      rm(this.#path(sandboxId), { force: true }),
      rm(`${this.#path(sandboxId)}.tmp`, { force: true }),
    ]);
  }

  /** Ids of all sandboxes that have a record, readable or not. */
  async list(): Promise<readonly string[]> {
    const files = await readdir(this.#directory).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    return [...new Set(files.map((file) => file.replace(/\.json(\.tmp)?$/, '')))]
      .filter((id) => v.is(sandboxIdSchema, id))
      .sort();
  }

  #path(sandboxId: string): string {
    return join(this.#directory, `${sandboxId}.json`);
  }
}

import * as v from 'valibot';
import { messageOf } from '#base/errors.ts';
import type { RunOptions, RunResult } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import type { Conversation } from '../conformance/crictl.ts';
import type { ClusterNode } from './node-namespaces.ts';

const patienceMs = 240_000;
/** Timeout that is longer than the waits of commands themselves. */
const commandTimeoutMs = 300_000;
const pollMs = 500;

/** Returns the result of `look` once it does not fail. Errors: its last one, after `ms`. */
export async function until<T>(what: string, look: () => Promise<T>, ms = patienceMs): Promise<T> {
  let last: unknown;
  const tried = async () => {
    try {
      return { value: await look() };
    } catch (error) {
      last = error;
      return undefined;
    }
  };
  const found = await poll(tried, { everyMs: pollMs, slowestMs: 2000, signal: AbortSignal.timeout(ms) });
  if (found === undefined) throw new Error(`not so after ${ms} ms: ${what}: ${messageOf(last)}`, { cause: last });
  return found.value;
}

const podSchema = v.object({
  metadata: v.object({
    name: v.string(),
    namespace: v.string(),
    uid: v.string(),
    deletionTimestamp: v.optional(v.string()),
  }),
  spec: v.object({ nodeName: v.optional(v.string(), '') }),
  status: v.object({
    phase: v.string(),
    podIP: v.optional(v.string(), ''),
    conditions: v.optional(v.array(v.object({ type: v.string(), status: v.string() })), []),
    containerStatuses: v.optional(
      v.array(v.object({ restartCount: v.number(), containerID: v.optional(v.string()) })),
      [],
    ),
  }),
});
export type ClusterPod = v.InferOutput<typeof podSchema>;

export const isReady = ({ status, metadata }: ClusterPod): boolean =>
  metadata.deletionTimestamp === undefined &&
  status.conditions.some(({ type, status: is }) => type === 'Ready' && is === 'True');

/** Types `kubectl` on a node as the administrator of the cluster. */
export class Kubectl {
  readonly node: ClusterNode;

  constructor(node: ClusterNode) {
    this.node = node;
  }

  async run(...args: readonly string[]): Promise<string> {
    return (await this.try(args, { okCodes: [0] })).stdout;
  }

  async try(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return await this.node.run('kubectl', args, { timeoutMs: commandTimeoutMs, okCodes: 'any', ...options });
  }

  async apply(yaml: string): Promise<void> {
    await this.try(['apply', '-f', '-'], { input: yaml, okCodes: [0] });
  }

  async delete(yaml: string): Promise<void> {
    await this.try(['delete', '--ignore-not-found', '-f', '-'], { input: yaml, okCodes: [0] });
  }

  /** The output of a script in a container of a pod, or of `deploy/NAME`. */
  async sh(pod: string, script: string, ...flags: readonly string[]): Promise<string> {
    return (await this.run('exec', pod, ...flags, '--', 'sh', '-c', script)).trim();
  }

  speak(...args: readonly string[]): Conversation {
    return this.node.speak('kubectl', ...args);
  }

  async json<T>(schema: v.GenericSchema<unknown, T>, ...args: readonly string[]): Promise<T> {
    return v.parse(schema, JSON.parse(await this.run(...args, '-o', 'json')));
  }

  async pods(selector: string, namespace = 'default'): Promise<readonly ClusterPod[]> {
    const list = v.object({ items: v.array(podSchema) });
    return (await this.json(list, 'get', 'pods', '-n', namespace, '-l', selector)).items;
  }

  /** Waits for a rollout of `deploy/NAME`, `sts/NAME` or `ds/NAME`. */
  async rolledOut(what: string, namespace = 'default'): Promise<void> {
    await this.run('rollout', 'status', what, '-n', namespace, `--timeout=${patienceMs / 1000}s`);
  }
}

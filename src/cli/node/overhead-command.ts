import * as v from 'valibot';
import { type PodOverhead, podOverheadSchema } from '#api/node.ts';
import { PodvmError } from '#base/errors.ts';
import type { Client } from '../client.ts';
import { detailText } from '../terminal/listing.ts';
import { table, type Terminal, write } from '../terminal/terminal.ts';

export type OverheadOutput = 'text' | 'yaml' | 'json';

/** Prints the overhead of pods on the node; as YAML or JSON, a RuntimeClass that declares it to the scheduler. */
export async function overheadCommand(client: Client, output: OverheadOutput, { stdout }: Terminal): Promise<void> {
  const pods = await client.get('/v1/overhead', v.array(podOverheadSchema));
  await write(stdout, await texts[output](pods));
}

const texts: Readonly<Record<OverheadOutput, (pods: readonly PodOverhead[]) => string | Promise<string>>> = {
  text: overheadText,
  yaml: runtimeClassText,
  json: (pods) => detailText(runtimeClassOf(pods), 'json'),
};

/** Overhead that a scheduler adds to each pod: the highest memory and the median processor time. */
export interface FixedOverhead {
  readonly memoryMiB: number;
  readonly cpuMillis: number;
}

/** Errors: `failedPrecondition` if no pod was measured. */
export function fixedOverheadOf(pods: readonly PodOverhead[]): FixedOverhead {
  const byCpu = pods.map(({ cpuMillis }) => cpuMillis).sort((a, b) => a - b);
  const middle = byCpu[Math.floor(byCpu.length / 2)];
  if (middle === undefined) {
    throw new PodvmError('failedPrecondition', 'Cannot measure the overhead: no pod has run for half a minute', {
      fix: 'Run a pod, such as `podvm run examples/hello.yaml`, and try again while it runs.',
    });
  }
  const most = Math.max(...pods.map(({ memoryBytes }) => memoryBytes));
  return {
    memoryMiB: Math.max(1, Math.ceil(most / 1024 / 1024)),
    cpuMillis: Math.max(1, Math.ceil(middle)),
  };
}

export function overheadText(pods: readonly PodOverhead[]): string {
  const { memoryMiB, cpuMillis } = fixedOverheadOf(pods);
  const rows = pods.map((pod) => [
    `${pod.namespace}/${pod.name}`,
    `${(pod.memoryBytes / 1024 / 1024).toFixed(1)} MiB`,
    `${pod.cpuMillis.toFixed(1)}m`,
  ]);
  return `${table(['POD', 'MEMORY', 'CPU'], rows)}\nfor a RuntimeClass: memory ${memoryMiB}Mi, cpu ${cpuMillis}m (podvm overhead -o yaml)\n`;
}

export function runtimeClassOf(pods: readonly PodOverhead[]) {
  const { memoryMiB, cpuMillis } = fixedOverheadOf(pods);
  return {
    apiVersion: 'node.k8s.io/v1',
    kind: 'RuntimeClass',
    metadata: { name: 'podvm' },
    handler: 'podvm',
    overhead: { podFixed: { memory: `${memoryMiB}Mi`, cpu: `${cpuMillis}m` } },
  };
}

/** The RuntimeClass as a file of a cluster has it. */
export function runtimeClassText(pods: readonly PodOverhead[]): string {
  const { apiVersion, kind, metadata, handler, overhead } = runtimeClassOf(pods);
  const { memory, cpu } = overhead.podFixed;
  const count = pods.length === 1 ? '1 pod' : `${pods.length} pods`;
  return `# Measured on this node over ${count}: the most memory, and the processor time of the middle one.
apiVersion: ${apiVersion}
kind: ${kind}
metadata: { name: ${metadata.name} }
handler: ${handler}
overhead:
  podFixed: { memory: ${memory}, cpu: ${cpu} }
`;
}

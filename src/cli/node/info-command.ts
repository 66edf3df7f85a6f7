import * as v from 'valibot';
import { imageSummarySchema } from '#api/images.ts';
import { type NodeDetails, nodeDetailsSchema } from '#api/node.ts';
import { podSummarySchema } from '#api/pods.ts';
import { kindOf } from '#base/errors.ts';
import type { Client } from '../client.ts';
import { roomTable } from '../pods/top-command.ts';
import { type DetailOutput, detailText } from '../terminal/listing.ts';
import { type Terminal, write } from '../terminal/terminal.ts';
import type { Versions } from '../version-command.ts';

/** What the node has; undefined if none runs. */
interface NodeInfo {
  readonly pods: { readonly running: number; readonly ended: number };
  readonly images: number;
  readonly waitingMachines: number;
  readonly room: NodeDetails;
}

/** Prints whether a node runs, what it has, and what this podvm is made of. */
export async function infoCommand(
  client: Client,
  { socketPath, versions }: { readonly socketPath: string; readonly versions: Versions },
  output: 'text' | DetailOutput,
  { stdout }: Terminal,
): Promise<void> {
  const node = await nodeInfo(client);
  if (output !== 'text') {
    const made = Object.fromEntries(Object.entries(versions).map(([name, version]) => [name, version ?? null]));
    return await write(stdout, await detailText({ socketPath, node: node ?? null, versions: made }, output));
  }
  const rows: readonly (readonly [string, string])[] = [
    ['serving', node === undefined ? `no: no node runs at ${socketPath}` : socketPath],
    ...(node === undefined
      ? []
      : [
          ['pods', `${node.pods.running} running, ${node.pods.ended} ended`] as const,
          ['images', String(node.images)] as const,
          ['machines', `${node.waitingMachines} waiting for a pod`] as const,
        ]),
    ...Object.entries(versions).map(([name, version]) => [name, String(version ?? 'not set up')] as const),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  await write(stdout, rows.map(([name, text]) => `${name.padEnd(width)}   ${text}\n`).join(''));
  const room = node === undefined ? undefined : roomTable(node.room);
  if (room !== undefined) await write(stdout, `\n${room}`);
}

async function nodeInfo(client: Client): Promise<NodeInfo | undefined> {
  try {
    const [room, pods, images] = await Promise.all([
      client.get('/v1/node', nodeDetailsSchema),
      client.get('/v1/pods?ended=true', v.array(podSummarySchema)),
      client.get('/v1/images', v.array(imageSummarySchema)),
    ]);
    const ended = pods.filter(({ endedAt }) => endedAt !== undefined).length;
    const { waitingMachines } = room;
    return { pods: { running: pods.length - ended, ended }, images: images.length, waitingMachines, room };
  } catch (error) {
    if (kindOf(error) === 'unavailable') return undefined;
    throw error;
  }
}

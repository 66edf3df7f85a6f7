import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { RuntimeService } from '#cri/schema/api_pb.ts';
import { figureOf } from '../../figures.ts';
import { callSteadily } from '../../steady-calls.ts';
import { anonymousMB, residentMB } from '../accounts.ts';
import { CriPod } from '../cri-peer.ts';
import type { PodvmPeer } from '../field.ts';
import { removeAll } from './memory.ts';
import { type Row, sleeping, type Values } from './row.ts';

const podCount = 10;
/** A daemon gives memory back once the host's load of the last minute is below its number of processors. */
const atRestMs = 30_000;
const load = { callsPerSecond: 1_000, seconds: 15 } as const;

/** A daemon of PodVM is a new one in each round; containerd's does not end with a row. */
export const daemonRow: Row = async ({ field }) => {
  return async (name): Promise<Values> => {
    await using undo = new AsyncDisposableStack();
    const started = name === 'podvm' ? await field.startPodvm(undo) : undefined;
    const peer = started ?? field.peer(name);
    const pods: CriPod[] = [];
    undo.defer(() => removeAll(pods));
    for (let at = 0; at < podCount; at += 1)
      pods.push(await CriPod.start(peer, { name: 'daemon', image: field.images.base, command: sleeping }));
    await peer.rest();
    await delay(atRestMs);
    const { daemonPid } = peer;
    const memory = { tenPodsMB: await residentMB(daemonPid), anonymousMB: await anonymousMB(daemonPid) };
    const called = pods.map(({ sandboxId, containerId }) => ({ podSandboxId: sandboxId, containerId }));
    const times: number[] = [];
    await callSteadily(peer.client.of(RuntimeService), called, load, (_, ms) => times.push(ms));
    const { median: callMs, p99: slowCallMs } = figureOf(times);
    const serves = started === undefined ? {} : { servesMs: await servesMsOf(started) };
    return { ...memory, askedMB: await residentMB(daemonPid), ...serves, callMs, slowCallMs };
  };
};

/**
 * From the start of its process to the line of its log that says that it serves, in `ms`, up to 10 too many: the kernel tells
 * the start in hundredths of a second since the boot (proc(5), `starttime`).
 */
async function servesMsOf({ daemonPid, log }: PodvmPeer): Promise<number> {
  const stat = await readFile(`/proc/${daemonPid}/stat`, 'latin1');
  const startedMs = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]) * 10;
  const bootMs = Date.now() - Number(process.hrtime.bigint() / 1_000_000n);
  const [, servesAt = ''] = /^(\S+) info serving /m.exec(await log()) ?? [];
  return Date.parse(servesAt) - bootMs - startedMs;
}

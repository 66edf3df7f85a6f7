import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type CriNode, openCriNode } from './cri-node.ts';
import { type Figures, Sheet } from './figures.ts';
import { cpuMs, processesOf } from './node.ts';
import type { SuiteOptions } from './suite.ts';

const lineBytes = 128;
const lines = 262_144;
const megabytes = (lines * lineBytes) / 1e6;
const pollMs = 2;
const timeoutMs = 300_000;

/** The same lines from a file, in pieces of 64 KiB, and as tools of a shell write them, in pieces of 1 to 4 KiB. */
const producers = {
  blocks: 'dd if=/dev/shm/lines bs=64k 2>/dev/null',
  lines: `yes ${'x'.repeat(lineBytes - 1)} | head -n ${lines}`,
} as const;

/** What becomes of the lines: the first two do not leave the guest. */
const ways = {
  /** No one reads them: as fast as they are made. */
  Thrown: (producer: string) => `{ ${producer}; } >/dev/null`,
  /** Another process of the guest reads them from a pipe. */
  Piped: (producer: string) => `{ ${producer}; } | dd bs=64k of=/dev/null 2>/dev/null`,
  /** They are output of the container's first process, until the last one is in its log. */
  Logged: (producer: string) => `echo "${producer}" >/dev/shm/asked`,
} as const;

/** The container's first process: runs what is asked of it. */
const script = 'mkfifo /dev/shm/asked; while :; do read -r asked </dev/shm/asked && eval "$asked"; done';

interface Place {
  readonly node: CriNode;
  readonly containerId: string;
  readonly log: string;
  readonly vmm: readonly number[];
}

/**
 * Throughput of a container's output by how far it goes: `output.<producer><way>MBps`, and the processor time of the VMM and
 * of the daemon for each megabyte, `output.<producer><way>{Vmm,Daemon}MsPerMB`.
 */
export async function outputSuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-bench-output-'));
  undo.defer(() => rm(directory, { recursive: true }));
  const place = await openPlace(undo.use(await openCriNode(0)), directory);
  await measure(place, `${producers.lines} >/dev/shm/lines`);
  for (let round = 0; round <= rounds; round += 1) {
    for (const [producer, command] of Object.entries(producers)) {
      for (const [way, full] of Object.entries(ways)) {
        const { ms, vmmMs, daemonMs } = await measure(place, full(command), way === 'Logged');
        if (round === 0) continue; // code is compiled, heaps have grown
        sheet.add(`output.${producer}${way}MBps`, (megabytes * 1000) / ms);
        sheet.add(`output.${producer}${way}VmmMsPerMB`, vmmMs / megabytes);
        sheet.add(`output.${producer}${way}DaemonMsPerMB`, daemonMs / megabytes);
      }
    }
    say(`round ${round} of ${rounds}`);
  }
  return sheet.figures;
}

async function openPlace(node: CriNode, logDirectory: string): Promise<Place> {
  const { runtime } = node;
  const sandboxConfig = {
    metadata: { name: 'bench-output', namespace: 'bench', uid: 'bench-output', attempt: 0 },
    logDirectory,
  };
  const { podSandboxId } = await runtime.runPodSandbox({ config: sandboxConfig });
  const config = {
    metadata: { name: 'main' },
    image: { image: 'localhost/podvm/base:latest' },
    command: ['sh', '-c', script],
    logPath: 'main.log',
  };
  const { containerId } = await runtime.createContainer({ podSandboxId, config, sandboxConfig });
  await runtime.startContainer({ containerId });
  return { node, containerId, log: join(logDirectory, 'main.log'), vmm: await processesOf(podSandboxId) };
}

async function measure({ node, containerId, log, vmm }: Place, script: string, isLogged = false) {
  const used = async (pids: readonly number[]) => (await Promise.all(pids.map(cpuMs))).reduce((sum, ms) => sum + ms, 0);
  const [vmmBefore, daemonBefore, sizeBefore] = [await used(vmm), await used([node.pid]), (await stat(log)).size];
  const startedMs = performance.now();
  const { exitCode, stderr } = await node.runtime.execSync({ containerId, cmd: ['sh', '-ec', script], timeout: 300n });
  if (exitCode !== 0) throw new Error(`exec ended with ${exitCode}: ${Buffer.from(stderr).toString()}`);
  if (isLogged) await untilSize(log, sizeBefore + megabytes * 1e6 + lines * recordBytes);
  const ms = performance.now() - startedMs;
  return { ms, vmmMs: (await used(vmm)) - vmmBefore, daemonMs: (await used([node.pid])) - daemonBefore };
}

async function untilSize(log: string, bytes: number): Promise<void> {
  const deadline = AbortSignal.timeout(timeoutMs);
  while ((await stat(log)).size < bytes) {
    deadline.throwIfAborted();
    await delay(pollMs);
  }
}

/** What a record of CRI's log adds to a line, at least: date, stream, tag. */
const recordBytes = '2026-01-01T00:00:00.000000000Z stdout F '.length;

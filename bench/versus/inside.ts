import { run } from '#host/process/run.ts';
import { messageOf } from '#base/errors.ts';
import { writeFileAtomic } from '#host/file/files.ts';
import { openField } from './field.ts';
import { takeOver } from './prepared.ts';
import type { MeasuredRow, Result } from './result.ts';
import { containerdRow } from './rows/containerd.ts';
import { daemonRow } from './rows/daemon.ts';
import { filesRow } from './rows/files.ts';
import { logsRow } from './rows/logs.ts';
import { burstRow, densityRow, memoryRow } from './rows/memory.ts';
import { netRow } from './rows/net.ts';
import { cpuRow, execRow, podRow } from './rows/pod.ts';
import { pullRow } from './rows/pull.ts';
import type { Row, RowOptions } from './rows/row.ts';
import { startRow } from './rows/start.ts';
import { type RowName, type RowText, table } from './table.ts';

/*
 * `node inside.ts PREPARED ROUNDS DENSITY JSON ROW...`, in a network namespace of its own: bridge, addresses and ports
 * of all contestants end with it. Writes the result after each row; exits with 1 when a row has failed.
 */
const rows: Readonly<Record<RowName, Row>> = {
  start: startRow,
  pod: podRow,
  containerd: containerdRow,
  exec: execRow,
  memory: memoryRow,
  cpu: cpuRow,
  burst: burstRow,
  density: densityRow,
  daemon: daemonRow,
  files: filesRow,
  net: netRow,
  pull: pullRow,
  logs: logsRow,
};

const say = (line: string) => process.stderr.write(`versus: ${line}\n`);

async function main(): Promise<void> {
  const [, , file = '', rounds = '', density = '', json = '', ...names] = process.argv;
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort(new Error(name)));
  const { signal } = stop;
  await run('ip', ['link', 'set', 'lo', 'up']);
  const prepared = await takeOver(file);
  await using undo = new AsyncDisposableStack();
  say('starting what is measured');
  const field = await openField(prepared, undo, signal);
  const result: Result = {
    version: 1,
    measuredAt: new Date().toISOString(),
    rounds: Number(rounds),
    machine: prepared.machine,
    versions: prepared.versions,
    density: Number(density),
    rows: {},
  };
  for (const name of names as RowName[]) {
    await using kept = new AsyncDisposableStack();
    const options = { field, undo: kept, density: result.density, signal };
    result.rows[name] = await measureRow(name, options, result.rounds);
    await writeFileAtomic(json, `${JSON.stringify(result)}\n`, 0o644);
    signal.throwIfAborted();
  }
  if (Object.values(result.rows).some(({ failure }) => failure !== undefined)) process.exitCode = 1;
}

/** Measures contestants in turn; each round begins with another one. A failure ends the row, and is in its result. */
async function measureRow(name: RowName, options: RowOptions, asked: number): Promise<MeasuredRow> {
  const { peers, maxRounds = asked, isColdRound = false }: RowText = table[name];
  const rounds = Math.min(asked, maxRounds);
  const values: MeasuredRow['values'] = {};
  const startedMs = performance.now();
  const seconds = () => Math.round((performance.now() - startedMs) / 1000);
  try {
    const measure = await rows[name](options);
    for (let round = isColdRound ? 1 : 0; round <= rounds; round += 1) {
      for (const at of peers.keys()) {
        options.signal.throwIfAborted();
        const peer = peers[(at + round) % peers.length] ?? 'podvm';
        await options.field.rest(peer);
        const measured = await measure(peer);
        if (round > 0) add(values, peer, measured);
      }
      say(`${name}: ${round === 0 ? 'warmed up' : `round ${round} of ${rounds}`}, ${seconds()} s`);
    }
    return { seconds: seconds(), values };
  } catch (error) {
    say(`${name} FAILED: ${messageOf(error)}`);
    return { seconds: seconds(), values, failure: messageOf(error) };
  }
}

function add(values: MeasuredRow['values'], peer: string, measured: Readonly<Record<string, number>>): void {
  for (const [metric, value] of Object.entries(measured)) {
    ((values[metric] ??= {})[peer] ??= []).push(Number(value.toPrecision(4)));
  }
}

try {
  await main();
} catch (error) {
  say(`FAILED: ${messageOf(error)}`);
  process.exitCode = 1;
}

import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import * as v from 'valibot';
import { cgroupRoot, removeWhenEmpty } from '#host/cgroup/cgroup-tree.ts';
import { isThere, writeFileAtomic } from '#host/file/files.ts';
import { startChild } from '#host/process/start-child.ts';
import { makeWorkDirectory } from '../../test/conformance/work-directory.ts';
import { familyOf } from './accounts.ts';
import { performancePage } from './page.ts';
import { handOn, prepare } from './prepared.ts';
import { keptRows, type Result, resultSchema } from './result.ts';
import { type RowName, rowNames } from './table.ts';
import { callersEnv } from '../../test/conformance/callers-env.ts';

const usage = `npm run bench -- versus [--rows ${rowNames.join(',')}] [--rounds N] [--density N] [--json FILE [--resume]]`;
const say = (line: string) => process.stderr.write(`versus: ${line}\n`);
const endTimeoutMs = 20_000;

/**
 * `npm run bench -- versus`: PodVM beside containerd with runc, `runsc`, `crun` and `ctr`, in turn on this machine.
 * Builds the peers once, prints the page of the result, and writes the result as JSON. With `--resume`, rows that the file
 * has already, of the same versions and machine, are not measured again. Returns the exit code.
 */
export async function versus(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rows: { type: 'string', default: rowNames.join(',') },
      rounds: { type: 'string', default: '8' },
      density: { type: 'string', default: '20' },
      json: { type: 'string' },
      resume: { type: 'boolean', default: false },
    },
  });
  const rows = values.rows.split(',');
  const unknown = rows.find((name) => !rowNames.includes(name as RowName)); // SAFE: compared as a string
  const areCounts = [values.rounds, values.density].every((text) => /^[1-9]\d{0,2}$/.test(text));
  const cannotResume = values.resume && values.json === undefined;
  if (unknown !== undefined || !areCounts || cannotResume) {
    process.stderr.write(`usage: ${usage}\n`);
    return 2;
  }
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  await using undo = new AsyncDisposableStack();
  const { path: work } = undo.use(await makeWorkDirectory());
  undo.defer(() => removeCgroups(basename(work)));
  undo.defer(() => endAll(work));
  const prepared = await prepare(work, say, stop.signal);
  const counts = { rounds: Number(values.rounds), density: Number(values.density) };
  const before = values.resume ? await readResult(values.json) : undefined;
  const kept = before === undefined ? {} : keptRows(before, { ...counts, ...prepared });
  const left = rows.filter((name) => kept[name] === undefined);
  if (values.resume) say(`rows kept: ${Object.keys(kept).join(', ') || 'none'}`);
  if (before !== undefined && left.length === 0) return 0;
  const json = join(work, 'result.json');
  const inside = [join(import.meta.dirname, 'inside.ts'), await handOn(prepared)];
  const argv = ['--net', process.execPath, ...inside, values.rounds, values.density, json, ...left];
  const child = await startChild('unshare', argv, { stdio: ['ignore', 2, 2], env: callersEnv() });
  stop.signal.addEventListener('abort', () => child.kill('SIGTERM'));
  const [code] = (await once(child, 'exit')) as [number | null];
  const measured = await readResult(json);
  if (measured === undefined) return code ?? 1;
  const result = { ...measured, rows: { ...kept, ...measured.rows } };
  process.stdout.write(await performancePage(result));
  if (values.json !== undefined) await writeFileAtomic(values.json, `${JSON.stringify(result)}\n`, 0o644);
  return code ?? 1;
}

/** Undefined if there is no such file. */
async function readResult(file: string | undefined): Promise<Result | undefined> {
  if (file === undefined || !(await isThere(file))) return undefined;
  return v.parse(resultSchema, JSON.parse(await readFile(file, 'utf8')));
}

/** Ends the processes of a failed or killed run: those with its directory in their command line. */
async function endAll(work: string): Promise<void> {
  const deadlineMs = performance.now() + endTimeoutMs;
  for (let sent = 0; ; sent += 1) {
    const left = await familyOf([work]);
    if (left.length === 0) return;
    if (performance.now() > deadlineMs) throw new Error(`processes of this run do not end: ${left.join(', ')}`);
    if (sent === 0) say(`ending ${left.length} processes that are left`);
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // it has ended meanwhile
      }
    }
    await delay(200);
  }
}

/** Removes the cgroups of containerd's pods from each hierarchy of version 1, or the one of version 2. */
async function removeCgroups(parent: string): Promise<void> {
  for (const hierarchy of ['.', ...(await readdir(cgroupRoot))]) {
    const directory = join(cgroupRoot, hierarchy, parent);
    const inside = await readdir(directory, { withFileTypes: true }).catch(() => undefined); // it is not there
    if (inside === undefined) continue;
    for (const pod of inside.filter((entry) => entry.isDirectory())) await removeWhenEmpty(join(directory, pod.name));
    await removeWhenEmpty(directory);
  }
}

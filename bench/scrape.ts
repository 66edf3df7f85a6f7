import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { openCriNode } from './cri-node.ts';
import { type Figures, Sheet } from './figures.ts';
import { idlePods, startOf } from './node.ts';
import type { SuiteOptions } from './suite.ts';

/** Prometheus' default in charts of Kubernetes is between 15 and 60 s; more scrapes cost more. */
const intervalMs = 15_000;
/** Time of one observation: two scrapes, and whole rounds of the daemon's other work. */
const observedMs = 2 * intervalMs;
const observations = 4;
/** Time in which the work after the starts, such as new waiting machines, is done, in `ms`. */
const restMs = 30_000;

/**
 * A real Prometheus scrapes a node with `n` idle pods every 15 s: `scrape.ms`, from its request to the end of the answer;
 * `scrape.cpuPercent`, what the daemon and the programs that it starts use of one core more than in the calmest time without
 * it: other work of the daemon, such as that after the starts, comes and goes.
 */
export async function scrapeSuite({ rounds: count, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  const port = await freePort();
  await using node = await openCriNode(0, { PODVM_METRICS_ADDRESS: `127.0.0.1:${port}` });
  await using pods = startOf(idlePods('bench-scraped', count), []);
  await pods.lines(count);
  say(`${count} pods run`);
  await delay(restMs);
  const used = async () => {
    const before = await cpuMsWithChildren(node.pid);
    await delay(observedMs);
    return ((await cpuMsWithChildren(node.pid)) - before) / (observedMs / 100);
  };
  const observed = async () => {
    const all: number[] = [];
    for (let at = 0; at < observations; at += 1) all.push(await used());
    say(all.map((percent) => `${percent.toFixed(2)} %`).join(', '));
    return all;
  };
  say('processor time of the daemon without a scrape:');
  const without = Math.min(...(await observed()));
  await using prometheus = await openPrometheus(port);
  await delay(2 * intervalMs); // the first scrape asks all guests
  say('with one every 15 s:');
  for (const percent of await observed()) sheet.add('scrape.cpuPercent', percent - without);
  for (const seconds of await prometheus.scrapeSeconds()) sheet.add('scrape.ms', seconds * 1000);
  return sheet.figures;
}

/** Processor time of a process and of its children that have ended, in `ms` (proc_pid_stat(5)). */
async function cpuMsWithChildren(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]) * 10, 0);
}

const answerSchema = v.object({
  data: v.object({ result: v.array(v.object({ values: v.array(v.tuple([v.number(), v.string()])) })) }),
});

async function openPrometheus(target: number) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-prometheus-'));
  const port = await freePort();
  const config = join(directory, 'prometheus.yml');
  await writeFile(
    config,
    `global: { scrape_interval: ${intervalMs / 1000}s }
scrape_configs: [{ job_name: podvm, static_configs: [{ targets: ['127.0.0.1:${target}'] }] }]
`,
  );
  const args = [`--config.file=${config}`, `--storage.tsdb.path=${directory}/data`];
  const child = spawn('prometheus', [...args, `--web.listen-address=127.0.0.1:${port}`], { stdio: 'ignore' });
  const ended = once(child, 'close');
  await once(child, 'spawn');
  return {
    /** Durations of all scrapes but the first. */
    async scrapeSeconds(): Promise<readonly number[]> {
      const query = encodeURIComponent('scrape_duration_seconds[10m]');
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${query}`);
      const { data } = v.parse(answerSchema, await answer.json());
      return data.result.flatMap(({ values }) => values.slice(1).map(([, seconds]) => Number(seconds)));
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM');
      await ended;
      await rm(directory, { recursive: true });
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  if (typeof address !== 'object' || address === null) throw new Error('not listening on TCP');
  return address.port;
}

import { availableParallelism, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { writeFileAtomic } from '#host/file/files.ts';
import { adoptSuite } from './adopt.ts';
import { bootSuite } from './boot.ts';
import { burstSuite } from './burst.ts';
import { criSuite } from './cri.ts';
import { densitySuite } from './density.ts';
import { execSuite } from './exec.ts';
import { nested } from './figures.ts';
import { ioSuite } from './io.ts';
import { memorySuite } from './memory.ts';
import { netSuite } from './net.ts';
import { outputSuite } from './output.ts';
import { plot } from './plot.ts';
import { regression } from './regression/regression.ts';
import { scrapeSuite } from './scrape.ts';
import { startSuite } from './start.ts';
import type { SuiteOptions } from './suite.ts';
import { versus } from './versus/versus.ts';

/**
 * `npm run bench -- SUITE [--json FILE] [--svg FILE] [--n N]`: measures PodVM alone, prints a table, writes the figures
 * as JSON and a plot of them. `npm run bench -- versus` measures it beside other runtimes (`versus/versus.ts`),
 * `npm run bench -- regression` beside an earlier commit (`regression/regression.ts`).
 */
const suites = {
  boot: { run: bootSuite, n: 10 },
  start: { run: startSuite, n: 10 },
  exec: { run: execSuite, n: 30 },
  memory: { run: memorySuite, n: 3 },
  burst: { run: burstSuite, n: 20 },
  io: { run: ioSuite, n: 5 },
  net: { run: netSuite, n: 5 },
  output: { run: outputSuite, n: 5 },
  density: { run: densitySuite, n: 20 },
  cri: { run: criSuite, n: 10 },
  adopt: { run: adoptSuite, n: 100 },
  scrape: { run: scrapeSuite, n: 20 },
} as const;

const [suiteName, ...more] = process.argv.slice(2);
if (suiteName === 'versus') process.exit(await versus(more));
if (suiteName === 'regression') process.exit(await regression(more));

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    svg: { type: 'string' },
    n: { type: 'string' },
  },
});
const [name] = positionals;
const suite = name !== undefined && Object.hasOwn(suites, name) ? suites[name as keyof typeof suites] : undefined;
const rounds = Number(values.n ?? suite?.n);
if (suite === undefined || !Number.isInteger(rounds) || rounds < 1) {
  const usage = `npm run bench -- ${Object.keys(suites).join('|')}|versus|regression [--json FILE] [--svg FILE] [--n N]`;
  process.stderr.write(`usage: ${usage}\n`);
  process.exit(2);
}

const options: SuiteOptions = {
  rounds,
  say: (line) => process.stderr.write(`${line}\n`),
};
const figures = await suite.run(options);
for (const [key, { min, median, p99, max }] of Object.entries(figures)) {
  process.stdout.write(`${key.padEnd(30)} min ${min}  median ${median}  p99 ${p99}  max ${max}\n`);
}
const machine = { cores: availableParallelism(), memoryMiB: Math.round(totalmem() / 1024 ** 2), rounds };
if (values.json !== undefined) {
  await writeFileAtomic(values.json, `${JSON.stringify({ ...nested(figures), machine }, null, 2)}\n`, 0o644);
}
if (values.svg !== undefined) await writeFileAtomic(values.svg, plot(`podvm ${name ?? ''}`, figures), 0o644);

import { parseArgs } from 'node:util';
import { availableParallelism, totalmem } from 'node:os';
import { writeFileAtomic } from '#host/files.ts';
import { bootSuite } from './boot.ts';
import type { Figure } from './figures.ts';

/** `npm run bench -- SUITE --json FILE [--n N]`: measures, prints a table, writes the figures as JSON. */
const suites = { boot: bootSuite } as const;

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' }, n: { type: 'string', default: '10' } },
});
const [suite] = positionals;
const rounds = Number(values.n);
if (suite === undefined || !Object.hasOwn(suites, suite) || !Number.isInteger(rounds) || rounds < 1) {
  process.stderr.write(`usage: npm run bench -- ${Object.keys(suites).join('|')} [--json FILE] [--n ROUNDS]\n`);
  process.exit(2);
}

const say = (line: string) => process.stderr.write(`${line}\n`);
const figures: Record<string, Figure> = await suites[suite as keyof typeof suites](rounds, say);
for (const [name, { min, median, max }] of Object.entries(figures)) {
  process.stdout.write(`${name.padEnd(16)} min ${min}  median ${median}  max ${max}\n`);
}
const machine = { cores: availableParallelism(), memoryMiB: Math.round(totalmem() / 1024 ** 2), rounds };
if (values.json !== undefined)
  await writeFileAtomic(values.json, `${JSON.stringify({ ...figures, machine }, null, 2)}\n`, 0o644);

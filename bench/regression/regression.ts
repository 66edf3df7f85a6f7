import { messageOf } from '#base/errors.ts';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeFileAtomic } from '#host/file/files.ts';
import { medianOf } from '../figures.ts';
import { buildBase, findBase } from './base.ts';
import { type Contestant, type MeasuredPod, openContestant } from './contestant.ts';
import { mostRatio, type Pairs, ratioOf, regressedOf } from './judge.ts';

const usage = 'npm run bench -- regression [--base COMMIT] [--json FILE]';
const say = (line: string) => process.stderr.write(`regression: ${line}\n`);

/** Rounds before the first verdict, and as many again before each further one. */
const rounds = 6;
/** Verdicts: a figure that has grown is measured again before it fails. */
const verdicts = 3;

const figures = {
  startMs: 'start of a pod, processor time of the host, ms',
  execMs: 'exec, processor time of the host, ms',
  pssKiB: 'memory of an idle pod (PSS), KiB',
} as const;
type Figure = keyof typeof figures;

/**
 * `npm run bench -- regression`: starts, execs and memory of the checkout beside those of an earlier commit, round by round
 * in one run. Compares processor time, since wall time on a busy machine is that of other programs. Returns 1 if a figure has
 * grown by more than 15 %.
 */
export async function regression(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { base: { type: 'string' }, json: { type: 'string' } } });
  const base = await findBase(values.base).catch((error: unknown) => messageOf(error));
  if (typeof base === 'string') {
    process.stderr.write(`regression: no such commit: ${base}\nusage: ${usage}\n`);
    return 2;
  }
  if ('none' in base) {
    say(`nothing is compared: there is no base, since ${base.none}`);
    return 0;
  }
  say(`base: ${base.commit.slice(0, 12)}, ${base.what}`);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort(new Error(name)));
  await using undo = new AsyncDisposableStack();
  const build = undo.use(await buildBase(base.commit));
  const checkout = join(import.meta.dirname, '../../podvm');
  const pair = {
    base: undo.use(await openContestant(build.program, stop.signal)),
    checkout: undo.use(await openContestant(checkout, stop.signal)),
  };
  say('both nodes are ready');
  await round(pair, 0); // the first pod of a node pays for what later ones find
  const measured: Record<Figure, { base: number[]; checkout: number[] }> = {
    startMs: { base: [], checkout: [] },
    execMs: { base: [], checkout: [] },
    pssKiB: { base: [], checkout: [] },
  };
  let grown: readonly string[] = [];
  for (let verdict = 1, at = 1; verdict <= verdicts; verdict += 1) {
    for (; at <= verdict * rounds; at += 1) {
      stop.signal.throwIfAborted();
      const found = await round(pair, at);
      for (const name of Object.keys(figures) as Figure[])
        // SAFE: its keys
        for (const side of ['base', 'checkout'] as const) measured[name][side].push(found[side][name]);
    }
    grown = regressedOf(measured);
    if (grown.length === 0) break;
    if (verdict < verdicts) say(`measured again, since they have grown: ${grown.join(', ')}`);
  }
  for (const [name, text] of Object.entries(figures))
    process.stdout.write(`${lineOf(text, measured[name as Figure])}\n`); // SAFE: its keys
  if (values.json !== undefined) {
    await writeFileAtomic(values.json, `${JSON.stringify({ base: base.commit, measured }, null, 2)}\n`, 0o644);
  }
  if (grown.length === 0) return 0;
  for (const name of grown) {
    const percent = Math.round(100 * (ratioOf(measured[name as Figure]) - 1)); // SAFE: a key of it
    say(
      `failed: ${figures[name as Figure]}: ${percent} % more than the base; at most ${Math.round(100 * (mostRatio - 1))} % is allowed`,
    ); // SAFE: the same
  }
  return 1;
}

type Pair = Readonly<Record<'base' | 'checkout', Contestant>>;

/** One pod of each, the first of which is the other one in the next round. Memory is read while both run. */
async function round(pair: Pair, at: number) {
  const name = `pair-${at}`;
  const [first, second] = at % 2 === 0 ? (['base', 'checkout'] as const) : (['checkout', 'base'] as const);
  await using one = await pair[first].start(name);
  await using other = await pair[second].start(name);
  const figuresOf = async (pod: MeasuredPod): Promise<Record<Figure, number>> => {
    const { startMs, execMs } = pod;
    return { startMs, execMs, pssKiB: await pod.pssKiB() };
  };
  const [its, others] = await Promise.all([figuresOf(one), figuresOf(other)]);
  return first === 'base' ? { base: its, checkout: others } : { base: others, checkout: its };
}

function lineOf(text: string, pairs: Pairs): string {
  const [base, checkout] = [medianOf(pairs.base), medianOf(pairs.checkout)].map((value) =>
    Number(value.toPrecision(4)),
  );
  const spread = pairs.checkout.map((value, at) => value / (pairs.base[at] ?? Number.NaN)).toSorted((a, b) => a - b);
  const range = `${spread[0]?.toFixed(2)} to ${spread.at(-1)?.toFixed(2)}`;
  return `${text}: ${checkout}, base ${base}: ${ratioOf(pairs).toFixed(2)} x (${range} in ${spread.length} rounds)`;
}

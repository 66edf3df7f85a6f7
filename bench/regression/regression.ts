import { messageOf } from '#base/errors.ts';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeFileAtomic } from '#host/file/files.ts';
import { medianOf } from '../figures.ts';
import { type Accepted, acceptedSince } from './accepted.ts';
import { type Base, buildBase, findBase, isAsMeasuredAt, repo } from './base.ts';
import { type Contestant, type MeasuredPod, openContestant } from './contestant.ts';
import { doubtfulRatio, grownOf, mostRatio, type Pairs, ratioOf } from './judge.ts';

const usage = 'npm run bench -- regression [--base COMMIT] [--json FILE]';
const say = (line: string) => process.stderr.write(`regression: ${line}\n`);

/** Rounds before the first verdict, and as many again before each further one. */
const rounds = 8;
/** Verdicts: a figure that may have grown is measured again, and only the last verdict fails it. */
const verdicts = 3;

const figures = {
  startMs: 'start of a pod, processor time of the host, ms',
  execMs: 'exec, processor time of the host, ms',
  privateKiB: 'memory that an idle pod has alone, KiB',
} as const;
type Figure = keyof typeof figures;
const names = Object.keys(figures) as readonly Figure[]; // SAFE: its keys

/**
 * `npm run bench -- regression`: starts, execs and memory of the checkout beside those of an earlier commit, round by round
 * in one run. Compares processor time, since wall time on a busy machine is that of other programs. Returns 1 if a figure has
 * grown by more than 15 % and no commit accepts it.
 */
export async function regression(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: { base: { type: 'string' }, json: { type: 'string' } } });
  const base = await findBase(repo, values.base).catch((error: unknown) => messageOf(error));
  if (typeof base === 'string') {
    process.stderr.write(`regression: no such commit: ${base}\nusage: ${usage}\n`);
    return 2;
  }
  if ('none' in base) {
    say(`nothing is compared: there is no base, since ${base.none}`);
    return 0;
  }
  say(`base: ${base.commit.slice(0, 12)}, ${base.what}`);
  if (await isAsMeasuredAt(repo, base.commit)) {
    say('nothing is compared: the program and its packages are those of the base');
    return 0;
  }
  const accepted = await acceptedSince(repo, base.commit, names);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort(new Error(name)));
  await using undo = new AsyncDisposableStack();
  const checkout = undo.use(await openContestant(join(repo, 'podvm'), stop.signal));
  const opened = await openBase(base, stop.signal).catch((error: unknown) => {
    stop.signal.throwIfAborted();
    return messageOf(error); // which is no fault of the checkout
  });
  if (typeof opened === 'string') {
    say(`nothing is compared: the base cannot run here with the parts of the checkout's set-up: ${opened}`);
    return 0;
  }
  const pair = { base: undo.use(opened), checkout };
  say('both nodes are ready');
  await round(pair, 0); // the first pod of a node pays for what later ones find
  const measured: Record<Figure, { base: number[]; checkout: number[] }> = {
    startMs: { base: [], checkout: [] },
    execMs: { base: [], checkout: [] },
    privateKiB: { base: [], checkout: [] },
  };
  const isAccepted = (name: Figure) => accepted.some(({ figure }) => figure === name);
  let failed: readonly Figure[] = [];
  for (let verdict = 1, at = 1; verdict <= verdicts; verdict += 1) {
    for (; at <= verdict * rounds; at += 1) {
      stop.signal.throwIfAborted();
      const found = await round(pair, at);
      for (const name of names)
        for (const side of ['base', 'checkout'] as const) measured[name][side].push(found[side][name]);
    }
    const allowed = verdict < verdicts ? doubtfulRatio : mostRatio;
    failed = grownOf(measured, allowed).filter((name) => !isAccepted(name));
    if (failed.length === 0) break;
    if (verdict < verdicts) {
      const ratios = failed.map((name) => `${name} ${ratioOf(measured[name]).toFixed(2)} x`);
      say(`measured again, since they may have grown: ${ratios.join(', ')}`);
    }
  }
  for (const name of names) process.stdout.write(`${lineOf(figures[name], measured[name])}\n`);
  if (values.json !== undefined)
    await writeFileAtomic(values.json, `${JSON.stringify({ base: base.commit, measured }, null, 2)}\n`, 0o644);
  for (const each of accepted) say(acceptedLine(each));
  for (const name of failed) say(failedLine(name, measured[name]));
  return failed.length === 0 ? 0 : 1;
}

/** A node of the base's build. Its set-up may not download: it has the parts of the checkout's, and makes what only sources change. */
async function openBase({ commit }: Base, signal: AbortSignal): Promise<Contestant> {
  await using undo = new AsyncDisposableStack();
  const build = undo.use(await buildBase(commit));
  const node = undo.use(await openContestant(build.program, signal));
  const owned = undo.move();
  return { start: (name) => node.start(name), [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const acceptedLine = ({ figure, reason, commit }: Accepted) =>
  `${figure} may grow: ${commit} accepts it because ${reason}`;

function failedLine(name: Figure, pairs: Pairs): string {
  const [percent, most] = [ratioOf(pairs), mostRatio].map((ratio) => Math.round(100 * (ratio - 1)));
  return (
    `failed: ${figures[name]}: ${percent} % more than the base; at most ${most} % is allowed. If it is meant to grow, ` +
    `end a commit's message with \`Regression-accepted: ${name} because REASON\`.`
  );
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
    return { startMs, execMs, privateKiB: await pod.privateKiB() };
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

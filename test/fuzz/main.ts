import { parseArgs } from 'node:util';
import { messageOf } from '#base/errors.ts';
import { keep } from './corpus.ts';
import { imageImport } from './images.ts';
import { layer2 } from './frames.ts';
import { agent } from './agent.ts';
import { fileServer } from './file-server.ts';
import type { Target } from './target.ts';

/*
 * `npm run fuzz -- --minutes 10 [--target agent] [--seed 7]`: fuzzes each target, or one of them, for that time. A run
 * that breaks it is reduced and kept in test/fuzz/corpus, where the tests find it.
 */
const targets: readonly Target[] = [fileServer, agent, imageImport, layer2];
const say = (text: string) => process.stderr.write(`fuzz: ${text}\n`);

/** Returns whether the target passed. */
async function fuzz(target: Target, minutes: number, seed: number): Promise<boolean> {
  if (target.whyNot !== undefined) {
    say(`${target.name} cannot run: ${target.whyNot}`);
    return false;
  }
  say(`${target.name}: ${minutes} min, seed ${seed}`);
  const { runs, found } = await target.fuzz({ minutes, seed });
  say(`${target.name}: ${runs} runs, ${found === undefined ? 'nothing found' : 'broken'}`);
  if (found === undefined) return true;
  say(`kept ${await keep(target.name, found.run)}`);
  say(messageOf(found.error));
  return false;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      target: { type: 'string' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    },
  });
  const chosen = targets.filter(({ name }) => values.target === undefined || name === values.target);
  const [minutes, seed] = [Number(values.minutes), Number(values.seed)];
  if (chosen.length === 0 || !(minutes > 0) || !Number.isInteger(seed)) {
    say(`usage: --minutes N [--target ${targets.map(({ name }) => name).join('|')}] [--seed N]`);
    return 64;
  }
  let hold = true;
  for (const target of chosen) hold = (await fuzz(target, minutes, seed)) && hold;
  return hold ? 0 : 1;
}

process.exit(await main()); // the timer of a run that the time has cut short would be waited for

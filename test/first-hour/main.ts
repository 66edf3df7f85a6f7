import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { startSlowLine } from '../images/bad-registries.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { startRegistry } from '../images/registry.ts';
import { tracesOf } from '../leaks.ts';
import { openCliNode, repo } from '../vm/cli-node.ts';
import { Typist } from './typist.ts';
import { type Hour, type User, users } from './users.ts';

/*
 * `npm run first-hour`: types what five kinds of users type in their first hour into a real terminal of 80 columns, and checks
 * what its screen shows and each exit code. Prints how long commands take. `npm run first-hour -- docker ci`: only these.
 */
const say = (text: string) => void process.stdout.write(`${text}\n`);

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  if (address === null || typeof address === 'string') throw new Error('no port is free');
  return address.port;
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
const timed = ['podvm --version', 'podvm ps', 'podvm run --rm localhost/podvm/base true'] as const;
const times = 5;

/** Prints the fastest, the median and the slowest of a few runs of each command, from Enter to the next prompt. */
async function printTimes(at: Typist): Promise<void> {
  await at.type('podvm run -d --name other localhost/podvm/base sleep 1000'); // the node runs, with a pod
  for (const line of timed) {
    const taken: number[] = [];
    for (let time = 0; time < times; time += 1) {
      const beganMs = performance.now();
      await at.type(line);
      taken.push(performance.now() - beganMs);
    }
    const [first = 0, , median = 0, , last = 0] = taken.toSorted((a, b) => a - b);
    say(`${line}: ${seconds(first)}, ${seconds(median)}, ${seconds(last)} (fastest, median, slowest of ${times})`);
  }
  await at.type('podvm rm -f other');
}

/** An image of one layer that does not compress. */
async function writeImage(directory: string, bytes: number, name?: string): Promise<void> {
  const layers = [[{ name: 'file', content: randomBytes(bytes) }]];
  await writeLayout(directory, [{ ...(name !== undefined && { name }), compression: 'none', layers }]);
}

/** What a user's hour has of its host. The user's home is the directory of what is made. */
async function hourIn(home: string, root: string, owned: AsyncDisposableStack): Promise<Hour> {
  const probe = JSON.parse(await readFile(join(root, 'probe/accelerator.json'), 'utf8')) as { accelerator?: string };
  return {
    port: await freePort(),
    repo,
    isEmulated: probe.accelerator === 'tcg',
    makeLayout: async (name, bytes) => await writeImage(join(home, name), bytes, `${name}:1`),
    openSlowRegistry: async (name, bytes, bytesPerSecond) => {
      const registry = owned.use(await startRegistry());
      await writeImage(join(home, name), bytes);
      await registry.push(join(home, name), `${name}:1`);
      return owned.use(await startSlowLine(registry.name, bytesPerSecond)).name;
    },
  };
}

/** Types one user's lines on a node of their own. Returns whether all screens were right. */
async function passes({ name, isFresh = false, types }: Omit<User, 'comesFrom'>): Promise<boolean> {
  const beganMs = performance.now();
  const cli = await openCliNode({ isSetUp: true, startsNode: true, pool: '1' });
  if (isFresh) await rm(join(cli.root, 'templates'), { recursive: true }); // links to those of set-up
  let isRight = false;
  const home = join(cli.root, 'home');
  await mkdir(join(home, 'bin'), { recursive: true });
  await symlink(join(repo, 'podvm'), join(home, 'bin/podvm'));
  const path = [join(home, 'bin'), dirname(process.execPath), process.env['PATH'] ?? ''].join(':');
  const environment = { HOME: home, PODVM_ROOT: cli.root, PODVM_POOL: '1', PODVM_BACKGROUND: 'on', PATH: path };
  try {
    await using owned = new AsyncDisposableStack();
    await using at = await Typist.open(home, environment);
    await types(at, await hourIn(home, cli.root, owned));
    isRight = true;
  } catch (error) {
    say(`FAILED  ${name.padEnd(10)} ${error instanceof Error ? error.message : String(error)}`);
  }
  await cli.type(['uninstall']);
  await cli[Symbol.asyncDispose]();
  const left = await tracesOf({ directory: cli.root, ids: [] });
  if (left.length > 0) say(`FAILED  ${name.padEnd(10)} it has left behind: ${left.join(', ')}`);
  if (isRight) say(`ok      ${name.padEnd(10)} ${seconds(performance.now() - beganMs)}`);
  return isRight && left.length === 0;
}

async function main(names: readonly string[]): Promise<number> {
  const unknown = names.find((name) => users.every((user) => user.name !== name));
  if (unknown !== undefined) {
    say(`there is no user ${unknown}: ${users.map(({ name }) => name).join(', ')}`);
    return 2;
  }
  const chosen: readonly User[] = names.length === 0 ? users : users.filter(({ name }) => names.includes(name));
  const passed: boolean[] = [];
  for (const user of chosen) passed.push(await passes(user));
  if (names.length === 0) passed.push(await passes({ name: 'timings', types: printTimes }));
  return passed.every(Boolean) ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));

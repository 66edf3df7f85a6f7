import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { buildImage } from '../images/build-images.ts';
import { recipes } from '../images/recipes.ts';
import { freePort, type Registry, startRegistry } from '../images/registry.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode, type Typed } from './cli-node.ts';

const skip = await whyNoVm();
const readyMs = 300_000; // an emulated initdb takes 20 s alone
const example = join(import.meta.dirname, '../../examples/shop.yaml');

/** `examples/shop.yaml` as a user runs it, but with ports that are free here. */
describe('the shop', { skip, timeout: 900_000 }, () => {
  let registry: Registry;
  let cli: CliNode;
  let shop: Typed;
  let hostPort: number;

  const exec = (container: string, ...command: string[]) =>
    cli.type(['exec', 'shop', '-c', container, '--', ...command]);
  const ps = async () => (await cli.type(['ps'])).stdout;
  const until = async (what: string, isSo: () => Promise<boolean>) => {
    const deadline = AbortSignal.timeout(readyMs);
    while (!(await isSo())) {
      if (deadline.aborted) assert.fail(`not ${what} after ${readyMs} ms:\n${shop.stdout()}\n${shop.stderr()}`);
      await delay(500); // between two looks
    }
  };

  before(async () => {
    const { signal } = new AbortController();
    registry = await startRegistry();
    for (const recipe of recipes) await registry.push(await buildImage(recipe, signal), recipe.name);
    cli = await openCliNode({ isSetUp: true });
    hostPort = await freePort();
    const yaml = (await readFile(example, 'utf8'))
      .replaceAll('localhost:5000', registry.name)
      .replaceAll('hostPort: 8080', `hostPort: ${hostPort}`);
    shop = cli.start(['run', '-'], yaml);
    await until('ready', async () => / 4\/4 +Running/.test(await ps()));
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
  });

  test('its init container has waited, and its sidecar reports', () => {
    assert.match(shop.stdout(), /shop\/wait-for-volumes \| ready/);
    assert.match(shop.stdout(), /shop\/reporter +\| 80 (answers|is silent)/);
  });

  test('the configMap’s page is served at the host port, on 127.0.0.1', async () => {
    const response = await fetch(`http://127.0.0.1:${hostPort}/`);
    assert.equal(response.status, 200);
    assert.match(await response.text(), /The shop is open/);
  });

  test('redis-cli and psql work through exec', async () => {
    assert.equal((await exec('cache', 'redis-cli', 'ping')).stdout, 'PONG\n');
    const sum = 'select sum(x) from generate_series(1, 10) as t(x)';
    const psql = await exec('database', 'psql', '-h', '/run/postgresql', '-U', 'postgres', '-tAc', sum);
    assert.equal(psql.stdout, '55\n', psql.stderr);
  });

  test('a container over its memory limit is OOMKilled and restarted, and finds its data in the emptyDir', async () => {
    assert.equal((await exec('cache', 'redis-cli', 'set', 'kept', 'yes')).stdout, 'OK\n');
    assert.equal((await exec('cache', 'redis-cli', 'save')).stdout, 'OK\n');
    const fill = "for i=1,400 do redis.call('set',i,string.rep('x',1048576)) end";
    await exec('cache', 'redis-cli', 'eval', fill, '0');
    await until('restarted', async () => / 4\/4 +Running +1 /.test(await ps()));
    assert.match((await cli.type(['inspect', 'shop'])).stdout, /"reason": "OOMKilled"/);
    assert.equal((await exec('cache', 'redis-cli', 'get', 'kept')).stdout, 'yes\n');
  });

  test('Ctrl-C ends it in order: the database shuts down', async () => {
    shop.child.kill('SIGINT');
    const { code, stderr } = await shop.ended;
    assert.equal(code, 130);
    assert.match(stderr, /database system is shut down/);
  });
});

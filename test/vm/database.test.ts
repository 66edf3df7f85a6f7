import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { run } from '#host/run.ts';
import { buildImage } from '../images/build-images.ts';
import { recipes } from '../images/recipes.ts';
import { type Registry, startRegistry } from '../images/registry.ts';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode, type Typed } from './cli-node.ts';

const skip = await whyNoVm();
const readyMs = 300_000; // an emulated initdb takes 20 s alone
const rowsBeforeTheEnd = 40;
const detailsSchema = v.object({ sandbox: v.object({ vmmPid: v.number() }) });

/** PostgreSQL with fsync on loses no committed row when its machine is cut off. */
describe('a database whose machine is killed', { skip, timeout: 900_000 }, () => {
  let registry: Registry;
  let image: string;
  let cli: CliNode;
  let directory: string;

  before(async () => {
    const recipe = recipes.find(({ name }) => name.startsWith('shop/postgres')) ?? assert.fail();
    registry = await startRegistry();
    await registry.push(await buildImage(recipe, AbortSignal.timeout(readyMs)), recipe.name);
    image = `${registry.name}/${recipe.name}`;
    directory = await mkdtemp('/var/tmp/podvm-database-');
    cli = await openCliNode({ isSetUp: true });
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
    await registry[Symbol.asyncDispose]();
  });

  const podOf = (path: string, annotations: object): string =>
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'database', annotations },
      spec: {
        restartPolicy: 'Never',
        terminationGracePeriodSeconds: 30,
        volumes: [{ name: 'data', hostPath: { path } }],
        containers: [{ name: 'main', image, volumeMounts: [{ name: 'data', mountPath: '/var/lib/postgresql/data' }] }],
      },
    });
  const psql = (...args: string[]) => [
    ...['exec', 'database', '--', 'stdbuf', '-oL', 'psql', '-h', '/run/postgresql', '-U', 'postgres', '-qAt'],
    ...args,
  ];
  const untilReady = async (pod: Typed): Promise<void> => {
    const deadline = AbortSignal.timeout(readyMs);
    while ((await cli.type(psql('-c', 'select 1'))).code !== 0) {
      if (deadline.aborted || pod.child.exitCode !== null) assert.fail(`not ready: ${pod.stdout()}\n${pod.stderr()}`);
      await delay(500); // between two looks
    }
  };
  const vmmPid = async (): Promise<number> => {
    const { stdout } = await cli.type(['inspect', 'database']);
    return v.parse(detailsSchema, JSON.parse(stdout)).sandbox.vmmPid;
  };
  /** Rows one by one, each told when it is committed. */
  const load = Array.from({ length: 5000 }, (_, at) => `insert into rows values (${at + 1});\n\\echo ${at + 1}\n`).join(
    '',
  );

  const keepsWhatWasCommitted = async (path: string, annotations: object): Promise<void> => {
    const first = cli.start(['run', '-'], podOf(path, annotations));
    await untilReady(first);
    assert.equal((await cli.type(psql('-c', 'show fsync'))).stdout, 'on\n');
    await cli.type(psql('-c', 'create table rows (n int primary key)'));
    const pid = await vmmPid();
    const loading = cli.start(['exec', '-i', ...psql().slice(1)], load);
    await loading.shows(new RegExp(`^${rowsBeforeTheEnd}$`, 'm'));
    process.kill(pid, 'SIGKILL');
    const { stdout: told } = await loading.ended;
    await first.ended;
    const committed = told.trim().split('\n').map(Number);
    assert.ok(committed.length >= rowsBeforeTheEnd && committed.length < 5000, `${committed.length} rows`);

    const second = cli.start(['run', '-'], podOf(path, annotations));
    await untilReady(second);
    const { stdout: found } = await cli.type(psql('-c', 'select n from rows order by n'));
    const rows = new Set(found.trim().split('\n').map(Number));
    assert.deepEqual(
      committed.filter((n) => !rows.has(n)),
      [],
    );
    second.child.kill('SIGINT');
    await second.ended;
  };

  test('on a block volume', async () => {
    const path = join(directory, 'data.img');
    await writeFile(path, '');
    await truncate(path, 1024 ** 3);
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', path]);
    await keepsWhatWasCommitted(path, { 'podvm.dev/block-volumes': path });
    await run('e2fsck', ['-n', '-f', path]);
  });

  test('on a directory that is shared with the host', async () => {
    const path = join(directory, 'data');
    await mkdir(path);
    await keepsWhatWasCommitted(path, {});
  });
});

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { ContainerState, PodSandboxState } from '#cri/schema/api_pb.ts';
import { run } from '#host/run.ts';
import { poll } from '#host/wait.ts';
import { buildImage } from '../images/build-images.ts';
import { recipes } from '../images/recipes.ts';
import { type Registry, startRegistry } from '../images/registry.ts';
import { logLines } from '../log-lines.ts';
import { openCriNode } from './cri-node.ts';
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

  test('on a share, after its daemon was killed and replaced under load', async () => {
    const path = join(directory, 'adopted');
    await mkdir(path);
    await using node = await openCriNode();
    const { imageRef } = await node.images.pullImage({ image: { image } });
    const metadata = { name: 'database', namespace: 'default', uid: 'uid-of-database', attempt: 0 };
    const runPod = async (attempt: number) => {
      const sandboxConfig = {
        metadata: { ...metadata, attempt },
        logDirectory: join(node.cli.root, `logs-${attempt}`),
      };
      const { podSandboxId } = await node.runtime.runPodSandbox({ config: sandboxConfig });
      node.ids.push(podSandboxId);
      const start = async (name: string, more: object) => {
        const config = { metadata: { name }, image: { image: imageRef }, logPath: `${name}.log`, ...more };
        const { containerId } = await node.runtime.createContainer({ podSandboxId, sandboxConfig, config });
        await node.runtime.startContainer({ containerId });
        return containerId;
      };
      const main = await start('main', { mounts: [{ hostPath: path, containerPath: '/var/lib/postgresql/data' }] });
      return {
        podSandboxId,
        main,
        start,
        log: (name: string) => logLines(join(sandboxConfig.logDirectory, `${name}.log`)),
      };
    };
    const query = async (containerId: string, ...cmd: string[]) => {
      const { stdout, stderr, exitCode } = await node.runtime.execSync({ containerId, cmd, timeout: 120n });
      return { exitCode, stdout: Buffer.from(stdout).toString(), stderr: Buffer.from(stderr).toString() };
    };
    const local = ['-h', '/run/postgresql', '-U', 'postgres'];
    const isReady = async ({
      main,
      log,
    }: {
      readonly main: string;
      readonly log: (name: string) => Promise<readonly string[]>;
    }) => {
      const { status } = await node.runtime.containerStatus({ containerId: main });
      if (status?.state === ContainerState.CONTAINER_EXITED) assert.fail((await log('main')).join('\n'));
      return (await query(main, 'psql', ...local, '-c', 'select 1')).exitCode === 0;
    };
    const until = async (what: string, look: () => Promise<boolean>) => {
      const signal = AbortSignal.timeout(readyMs);
      const found = await poll(async () => (await look()) || undefined, { everyMs: 500, signal });
      assert.ok(found, `not within ${readyMs} ms: ${what}`);
    };

    const first = await runPod(0);
    await until('the database is ready', () => isReady(first));
    await query(first.main, 'psql', ...local, '-c', 'create table rows (n int primary key)');
    const envs = [{ key: 'PGPASSWORD', value: Buffer.from('postgres') }];
    const writes = String.raw`i=0; while :; do i=$((i+1)); printf 'insert into rows values (%d);\n\\echo %d\n' $i $i; done`;
    const psqlLoad = 'stdbuf -oL psql -h 127.0.0.1 -U postgres -qAt';
    await first.start('load', { command: ['sh', '-c', `(${writes}) | ${psqlLoad}`], args: [], envs });
    const told = async () => (await first.log('load')).map(Number);
    await until('rows are written', async () => (await told()).length >= rowsBeforeTheEnd);
    await node.end('SIGKILL');
    await node.start();
    const atTheStart = (await told()).length;
    await until('rows are written again', async () => (await told()).length >= atTheStart + rowsBeforeTheEnd);
    const { info } = await node.runtime.podSandboxStatus({ podSandboxId: first.podSandboxId, verbose: true });
    process.kill(v.parse(v.object({ pid: v.number() }), JSON.parse(info['info'] ?? '')).pid, 'SIGKILL');
    await until('the pod has failed', async () => {
      const { status } = await node.runtime.podSandboxStatus({ podSandboxId: first.podSandboxId });
      return status?.state === PodSandboxState.SANDBOX_NOTREADY;
    });
    const committed = await told();
    assert.deepEqual(
      committed,
      committed.map((_, at) => at + 1),
    );

    const second = await runPod(1);
    await until('the database is ready again', () => isReady(second));
    const found = await query(second.main, 'psql', ...local, '-qAt', '-c', 'select n from rows order by n');
    assert.deepEqual([found.exitCode, found.stderr], [0, '']);
    const rows = new Set(found.stdout.trim().split('\n').map(Number));
    assert.deepEqual(
      committed.filter((n) => !rows.has(n)),
      [],
    );
    const checked = await query(second.main, 'pg_amcheck', ...local, '--install-missing', '--all');
    assert.deepEqual(checked, { exitCode: 0, stdout: '', stderr: '' });
    for (const { podSandboxId } of [first, second]) await node.runtime.removePodSandbox({ podSandboxId });
  });
});

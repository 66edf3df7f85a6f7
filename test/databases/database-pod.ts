import assert from 'node:assert/strict';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { ContainerState, PodSandboxState } from '#cri/schema/api_pb.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { linesOf, logRecords } from '../log-lines.ts';
import type { CriNode } from '../vm/cri-node.ts';
import { databasesRecipe } from './recipe.ts';
import { scripts } from './scripts.ts';

type VolumeMode = 'share' | 'block' | 'scratch';

/** A program that writes rows to a volume, and reports each committed one. */
export interface Database {
  /** Name of it and of its container: `postgres-share`. */
  readonly name: string;
  readonly program: 'postgres' | 'sqlite';
  readonly mode: VolumeMode;
  /** SQLite's journal mode; none for PostgreSQL. */
  readonly journal: readonly ('delete' | 'wal')[];
}

const modes: readonly VolumeMode[] = ['share', 'block', 'scratch'];
export const databases: readonly Database[] = modes.flatMap((mode): Database[] => [
  { name: `postgres-${mode}`, program: 'postgres', mode, journal: [] },
  { name: `sqlite-delete-${mode}`, program: 'sqlite', mode, journal: ['delete'] },
  { name: `sqlite-wal-${mode}`, program: 'sqlite', mode, journal: ['wal'] },
]);

const deadlineMs = 300_000;
const blockMiB = 192;
const image = { image: `localhost/${databasesRecipe.name}` };
const uid = '0c1b6f57-6c2b-4c6f-9d0e-6d2e3c8a51b4';

export async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const found = await poll(look, { everyMs: 200, signal: AbortSignal.timeout(deadlineMs) });
  return found ?? assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

/** Makes a share and a block volume with a cluster of PostgreSQL in the directory, which outlive pods. */
export async function makeVolumes(directory: string, cluster: string): Promise<void> {
  const share = join(directory, 'share');
  await mkdir(share);
  await run('cp', ['-a', cluster, join(share, 'postgres')]);
  const block = join(directory, 'block.img');
  await writeFile(block, '');
  await truncate(block, blockMiB * 1024 * 1024);
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', share, block]);
  await run('sync', ['--file-system', directory]);
}

/** A pod with a container for each database. */
export class DatabasePod implements AsyncDisposable {
  readonly #node: CriNode;
  readonly #sandboxConfig;
  readonly #mounts: Readonly<Record<VolumeMode, string>>;
  readonly #containers = new Map<string, string>();
  readonly podSandboxId: string;

  private constructor(node: CriNode, podSandboxId: string, { sandboxConfig, mounts }: ReturnType<typeof configOf>) {
    this.#node = node;
    this.podSandboxId = podSandboxId;
    this.#sandboxConfig = sandboxConfig;
    this.#mounts = mounts;
  }

  /** `directory`: that of `makeVolumes`. */
  static async start(node: CriNode, directory: string, attempt: number): Promise<DatabasePod> {
    const config = configOf(node, directory, attempt);
    await mkdir(config.mounts.scratch, { recursive: true }); // a kubelet's, which has no more in it than its name
    const { podSandboxId } = await node.runtime.runPodSandbox({ config: config.sandboxConfig });
    node.ids.push(podSandboxId);
    return new DatabasePod(node, podSandboxId, config);
  }

  async #start(name: string, { mode, journal }: Database, script: keyof typeof scripts): Promise<string> {
    const config = {
      metadata: { name },
      image,
      command: ['sh', '-c', scripts[script], script, '/data', ...journal],
      logPath: `${name}.log`,
      mounts: [{ hostPath: this.#mounts[mode], containerPath: '/data' }],
    };
    const { podSandboxId } = this;
    const sandboxConfig = this.#sandboxConfig;
    const { containerId } = await this.#node.runtime.createContainer({ podSandboxId, sandboxConfig, config });
    await this.#node.runtime.startContainer({ containerId });
    this.#containers.set(name, containerId);
    return containerId;
  }

  async write(written: readonly Database[]): Promise<void> {
    for (const database of written) await this.#start(database.name, database, `${database.program}-write`);
  }

  #log(name: string): string {
    return join(this.#sandboxConfig.logDirectory, `${name}.log`);
  }

  async #stdout(name: string): Promise<readonly string[]> {
    return linesOf((await logRecords(this.#log(name))).filter(({ stream }) => stream === 'stdout'));
  }

  async #statusOf(name: string) {
    const containerId = this.#containers.get(name) ?? assert.fail(`no container ${name}`);
    const { status } = await this.#node.runtime.containerStatus({ containerId });
    return status ?? assert.fail();
  }

  async #all(name: string): Promise<string> {
    return linesOf(await logRecords(this.#log(name)))
      .slice(-40)
      .join('\n');
  }

  /** Rows whose commit the database has reported. Errors: one is missing or repeated. */
  async committed({ name }: Database): Promise<number> {
    const told = (await this.#stdout(name)).filter((line) => /^\d+$/.test(line)).map(Number);
    assert.deepEqual(
      told.filter((row, at) => row !== at + 1),
      [],
      name,
    );
    return told.length;
  }

  /** Resolves once each has committed as many more rows. Errors: one has ended, or commits no row before the deadline. */
  async untilWritten(written: readonly Database[], count: number): Promise<void> {
    for (const database of written) {
      const before = await this.committed(database);
      let rows = before;
      while (rows < before + count) rows = await this.#nextRows(database, rows); // on a busy host slowly, but steadily
    }
  }

  /** Number of committed rows once it is above `rows`. */
  async #nextRows(database: Database, rows: number): Promise<number> {
    const { name } = database;
    return await until(`${name} writes`, async () => {
      if ((await this.#statusOf(name)).state === ContainerState.CONTAINER_EXITED) {
        assert.fail(`${name} has ended: ${await this.#all(name)}`);
      }
      const now = await this.committed(database);
      return now > rows ? now : undefined;
    });
  }

  /** Kills the containers, without a grace period. */
  async killContainers(written: readonly Database[]): Promise<void> {
    for (const { name } of written) {
      await this.#node.runtime.stopContainer({ containerId: this.#containers.get(name) ?? '', timeout: 0n });
    }
  }

  async killMachine(): Promise<void> {
    const { podSandboxId } = this;
    const { info } = await this.#node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    process.kill(v.parse(v.object({ pid: v.number() }), JSON.parse(info['info'] ?? '')).pid, 'SIGKILL');
    await until('the pod has failed', async () => {
      const { status } = await this.#node.runtime.podSandboxStatus({ podSandboxId });
      return status?.state === PodSandboxState.SANDBOX_NOTREADY || undefined;
    });
  }

  /** Reads databases that were written. Errors: a committed row is lost, or a database is inconsistent. */
  async check(written: readonly Database[], rows: ReadonlyMap<Database, number>): Promise<void> {
    for (const database of written) await this.#start(`${database.name}-check`, database, `${database.program}-check`);
    for (const database of written) {
      const name = `${database.name}-check`;
      const { exitCode } = await until(`${name} ends`, async () => {
        const status = await this.#statusOf(name);
        return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
      });
      assert.equal(exitCode, 0, `${name}: ${await this.#all(name)}`);
      const found = (await this.#stdout(name))
        .filter((line) => line.startsWith('row '))
        .map((line) => Number(line.slice(4)));
      const committed = rows.get(database) ?? assert.fail(name);
      assert.deepEqual(
        found.filter((row, at) => row !== at + 1),
        [],
        name,
      );
      assert.ok(found.length >= committed, `${name}: ${found.length} rows, and ${committed} were committed`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#node.runtime.removePodSandbox({ podSandboxId: this.podSandboxId });
  }
}

function configOf(node: CriNode, directory: string, attempt: number) {
  const block = join(directory, 'block.img');
  const kubelet = join(node.cli.root, 'kubelet/pods', uid, 'volumes/kubernetes.io~empty-dir');
  return {
    sandboxConfig: {
      metadata: { name: 'databases', namespace: 'default', uid, attempt },
      logDirectory: join(node.cli.root, `logs-${attempt}`),
      annotations: { 'podvm.dev/block-volumes': block },
    },
    mounts: { share: join(directory, 'share'), block, scratch: join(kubelet, 'scratch') },
  };
}

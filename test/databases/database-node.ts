import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { buildImage } from '../images/build-images.ts';
import { type CriNode, openCriNode } from '../vm/cri-node.ts';
import { type Database, DatabasePod, makeVolumes } from './database-pod.ts';
import { DiskToCut } from './disk-to-cut.ts';
import { databasesRecipe, newCluster } from './recipe.ts';

const buildTimeoutMs = 900_000;
const diskMiB = 768;

/** Way in which the databases end. Only killed containers leave their pod, and so its scratch disk, in place. */
export type End = 'containers are killed' | 'the machine is killed' | 'the power is cut';
export const ends: readonly End[] = ['containers are killed', 'the machine is killed', 'the power is cut'];

export interface Round {
  readonly databases: readonly Database[];
  /** Kills the daemon while all write, and lets the next one take the pod over. */
  readonly isAdopted: boolean;
  readonly end: End;
  /** Rows that each commits before each fault, at least. */
  readonly rows: number;
}

/** A daemon with an image of databases, whose volumes are on a disk of their own. */
export class DatabaseNode implements AsyncDisposable {
  readonly #node: CriNode;
  readonly #undo: AsyncDisposableStack;
  readonly #directory: string;
  #attempts = 0;

  private constructor(node: CriNode, directory: string, undo: AsyncDisposableStack) {
    this.#node = node;
    this.#directory = directory;
    this.#undo = undo;
  }

  static async open(): Promise<DatabaseNode> {
    await using undo = new AsyncDisposableStack();
    const layout = await buildImage(databasesRecipe, AbortSignal.timeout(buildTimeoutMs));
    const directory = await mkdtemp('/var/tmp/podvm-databases-');
    undo.defer(() => rm(directory, { recursive: true }));
    await extractCluster(layout, directory);
    const node = undo.use(await openCriNode());
    const name = `localhost/${databasesRecipe.name}`;
    const loaded = await node.cli.type(['image', 'load', layout, '--name', name]);
    assert.equal(loaded.code, 0, loaded.stderr);
    return new DatabaseNode(node, directory, undo.move());
  }

  /** Errors: a committed row is lost, or a database is inconsistent afterwards. */
  async loseNothing({ databases, isAdopted, end, rows }: Round): Promise<ReadonlyMap<Database, number>> {
    const directory = join(this.#directory, String(this.#attempts));
    await mkdir(directory);
    await using disk = await DiskToCut.make(directory, diskMiB);
    await makeVolumes(disk.path, join(this.#directory, newCluster));
    const isKilled = ({ mode }: Database) => end === 'containers are killed' || mode === 'scratch';
    const [killed, others] = [databases.filter(isKilled), databases.filter((each) => !isKilled(each))];
    const committed = new Map<Database, number>();
    const count = async (pod: DatabasePod, ended: readonly Database[]) => {
      for (const database of ended) committed.set(database, await pod.committed(database));
    };

    await using pod = await this.#start(disk);
    await pod.write(databases);
    await pod.untilWritten(databases, rows);
    if (isAdopted) {
      await this.#node.end('SIGKILL');
      await this.#node.start();
      await pod.untilWritten(databases, rows);
    }
    await pod.killContainers(killed);
    await count(pod, killed);
    await pod.check(killed, committed);
    if (others.length === 0) return committed;

    if (end === 'the power is cut') await disk.cut();
    await pod.killMachine();
    await count(pod, others);
    await pod[Symbol.asyncDispose]();
    if (end === 'the power is cut') await disk.restore();
    await using next = await this.#start(disk);
    await next.check(others, committed);
    return committed;
  }

  async #start(disk: DiskToCut): Promise<DatabasePod> {
    this.#attempts += 1;
    return await DatabasePod.start(this.#node, disk.path, this.#attempts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

const layersSchema = v.object({ layers: v.tuple([v.object({ digest: v.string() })]) });
const manifestsSchema = v.object({ manifests: v.tuple([v.object({ digest: v.string() })]) });

/** Takes the cluster of the image's only layer. A guest would take a minute to copy its thousand files to a share. */
async function extractCluster(layout: string, directory: string): Promise<void> {
  const blob = (digest: string) => join(layout, 'blobs', digest.replace(':', '/'));
  const read = async (path: string): Promise<unknown> => JSON.parse(await readFile(path, 'utf8'));
  const { manifests } = v.parse(manifestsSchema, await read(join(layout, 'index.json')));
  const { layers } = v.parse(layersSchema, await read(blob(manifests[0].digest)));
  const from = ['--extract', '--gzip', '--file', blob(layers[0].digest), '--directory', directory];
  await run('tar', [...from, '--same-owner', `./${newCluster}`]);
}

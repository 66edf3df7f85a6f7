import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { DiskToCut } from '../databases/disk-to-cut.ts';
import { type CliNode, openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const diskMiB = 1024;

/** A state directory on a disk whose power can be cut. */
class NodeToCut implements AsyncDisposable {
  readonly cli: CliNode;
  readonly #disk: DiskToCut;
  readonly #undo: AsyncDisposableStack;
  #isMounted = false;

  private constructor(cli: CliNode, disk: DiskToCut, undo: AsyncDisposableStack) {
    this.cli = cli;
    this.#disk = disk;
    this.#undo = undo;
  }

  /** `lacking`: parts that it has not. */
  static async open(...lacking: readonly string[]): Promise<NodeToCut> {
    await using undo = new AsyncDisposableStack();
    const cli = undo.use(await openCliNode({ isSetUp: true }));
    if (lacking.length > 0) await rm(join(cli.root, 'assets'), { recursive: true });
    for (const entry of await readdir(join(cli.root, 'parts'))) {
      if (lacking.some((part) => entry.startsWith(`${part}-`))) await rm(join(cli.root, 'parts', entry));
    }
    for (const template of await readdir(join(cli.root, 'templates'))) await rm(join(cli.root, 'templates', template));
    const directory = await mkdtemp('/var/tmp/podvm-cut-');
    undo.defer(() => rmdir(directory));
    const disk = undo.use(await DiskToCut.make(directory, diskMiB));
    await run('cp', ['-a', `${cli.root}/.`, disk.path]);
    await chmod(disk.path, 0o711);
    await run('sync', ['-f', disk.path]);
    const kept = `${cli.root}.kept`;
    await rename(cli.root, kept);
    undo.defer(() => rename(kept, cli.root));
    await mkdir(cli.root);
    undo.defer(() => rmdir(cli.root));
    const node = new NodeToCut(cli, disk, undo.move());
    try {
      await node.#appear();
      return node;
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #appear(): Promise<void> {
    await run('mount', ['--bind', this.#disk.path, this.cli.root]);
    this.#isMounted = true;
  }

  async #vanish(): Promise<void> {
    if (this.#isMounted) await run('umount', [this.cli.root]);
    this.#isMounted = false;
  }

  /** The power goes, and comes back. The names of all files are on the disk then, and only data that was synced. */
  async cut(): Promise<void> {
    await this.#disk.cut();
    await this.#vanish();
    await this.#disk.restore();
    await this.#appear();
  }

  /** A pod runs. */
  async runs(): Promise<void> {
    const { code, stdout, stderr } = await this.cli.type([
      ...['run', '--rm', '--no-daemon', 'localhost/podvm/base', 'echo', 'here'],
    ]);
    assert.deepEqual([code, stdout], [0, 'here\n'], stderr);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#vanish();
    await this.#undo.disposeAsync();
  }
}

describe('after a power cut of the host, a pod runs', { skip, timeout: 600_000 }, () => {
  it('when set-up had just made parts', async () => {
    await using node = await NodeToCut.open('initramfs', 'file-server', 'modules');
    const { code, stderr } = await node.cli.type(['setup']);
    assert.equal(code, 0, stderr);
    await node.cut();
    await node.runs();
  });

  it('when an image and a template had just been made', async () => {
    await using node = await NodeToCut.open();
    await node.runs();
    await node.runs();
    await node.cut();
    await node.runs();
    await node.runs();
  });
});

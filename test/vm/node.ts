import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { freemem } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { assetsSchema, partVersionsOf, type Assets } from '#host/assets.ts';
import { createLog, silentLog, type Log } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { openSnapshotImages } from '#image/snapshot/snapshot-images.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { connectLink } from '#link/connect-link.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork, type HostNetworkOptions } from '#network/host-network.ts';
import { defaultLimits, type SandboxLimits } from '#sandbox/limits.ts';
import type { Parts } from '#sandbox/parts.ts';
import { openFakeFifos } from '#sandbox/testing/fake-parts.ts';
import { openSandboxes, type OpenSandboxes } from '#sandbox/sandboxes.ts';
import { createFileServers } from '#storage/file-server.ts';
import { adoptBlockClaim, claimBlock } from '#storage/block-claim.ts';
import { makeScratchDisk, makeVolumeDisk } from '#storage/scratch-disk.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';
import { tracesOf } from '../leaks.ts';

/** A whole node in a directory of its own, with the real parts of `podvm`. */
export interface Node extends AsyncDisposable {
  readonly directory: string;
  readonly sandboxes: OpenSandboxes;
  /** Random ids that it has generated, including those of its sandboxes, also of ones that failed to start. */
  readonly ids: readonly string[];
  /** Lists traces of its sandboxes outside of its directory (test/leaks.ts); empty once they are removed. */
  leftovers(): Promise<readonly string[]>;
}

const isRequired = process.env['PODVM_REQUIRE_VM'] === '1';
export const assetsRoot = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';
/** Directory of the templates that set-up made. */
export const templatesDirectory = join(assetsRoot, 'templates');

/** Why whole-VM tests cannot run here, or false; a reason is an error where they are required. */
export async function whyNoVm(): Promise<string | false> {
  const reason =
    process.getuid?.() !== 0 ? 'needs root' : (await readAssets()) === undefined ? 'needs `podvm setup`' : '';
  if (reason === '') return false;
  if (isRequired) throw new Error(`whole-VM tests are required, but: ${reason}`);
  return reason;
}

/** Returns the assets that `podvm setup` made; undefined when it never ran. */
export async function readAssets(): Promise<Assets | undefined> {
  try {
    return v.parse(assetsSchema, JSON.parse(await readFile(join(assetsRoot, 'assets/current.json'), 'utf8')));
  } catch {
    return undefined;
  }
}

export interface NodeOptions {
  readonly limits?: Partial<SandboxLimits>;
  /** Directory of an earlier node, whose process was killed, or one that the test made. */
  readonly earlier?: string;
  /** Directory of templates; default: those that set-up made. */
  readonly templates?: string;
  /** Machines that wait for a pod; default 0. */
  readonly poolSize?: number;
  /** Lead of the node's clock, in `ms`. */
  readonly aheadMs?: number;
  /** Parts of set-up that replace the real ones. */
  readonly assets?: Partial<Assets>;
  /** Directory of CNI configurations; default: none, so the built-in network is used. */
  readonly cniConfigDirectory?: string;
  /** Directories of CNI plugins. */
  readonly cniPluginDirs?: readonly string[];
  /** Puts itself between the sandboxes and the real parts. */
  readonly around?: (parts: Parts) => Parts;
}

export async function openNode({ limits, earlier, ...options }: NodeOptions = {}): Promise<Node> {
  const found = await readAssets();
  if (found === undefined) throw new Error('no assets');
  const assets = { ...found, ...options.assets };
  const directory = earlier ?? (await mkdtemp('/var/tmp/podvm-vm-'));
  const signal = new AbortController().signal;
  const log: Log =
    process.env['PODVM_TEST_LOG'] === undefined ? silentLog : createLog('debug', (line) => process.stderr.write(line));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  await run('chmod', ['0711', directory]);

  undo.defer(() => removeDefaultNetwork(join(directory, 'network'), signal)); // its bridge stays for the next pod otherwise
  const ids: string[] = earlier === undefined ? [] : await readdir(join(earlier, 'sandboxes')).catch(() => []);
  const surroundings = {
    nowMs: () => Date.now() + (options.aheadMs ?? 0),
    monotonicNs: () => process.hrtime.bigint(),
    availableBytes: () => Promise.resolve(freemem()),
    idleMs: () => Promise.resolve(0),
    hasDescriptors: () => true,
    randomBytes(count: number) {
      const bytes = randomBytes(count);
      ids.push(bytes.toString('hex')); // among them are those of the sandboxes
      return bytes;
    },
  };
  const { cniConfigDirectory, cniPluginDirs } = options;
  const cni: Partial<HostNetworkOptions> = {
    ...(cniConfigDirectory === undefined ? {} : { cniConfig: { directory: cniConfigDirectory, orElse: 'refuse' } }),
    ...(cniPluginDirs === undefined ? {} : { cniPluginDirs }),
  };
  const open = async () => {
    const parts: Parts = {
      driver: createQemuDriver({
        assets,
        accelerator: 'tcg',
        templates: options.templates ?? templatesDirectory,
      }),
      network: createHostNetwork({ stateDir: join(directory, 'network'), log, ...cni }),
      images: await openImageStore({ directory: join(directory, 'images'), sysroot: assets.sysroot, log }),
      snapshots: await openSnapshotImages({ directory: join(directory, 'snapshots'), sysroot: assets.sysroot, log }),
      makeScratchDisk,
      makeVolumeDisk,
      files: createFileServers(assets),
      claimBlock,
      adoptBlockClaim,
      modulesDisk: assets.modules,
      versions: partVersionsOf(assets),
      connectLink,
      openFifos: openFakeFifos,
    };
    return await openSandboxes(
      {
        directory,
        parts: options.around?.(parts) ?? parts,
        log,
        surroundings,
        poolSize: options.poolSize ?? 0,
        limits: { ...defaultLimits, ...limits },
      },
      signal,
    );
  };
  const sandboxes = undo.use(await open());
  const owned = undo.move();
  return {
    directory,
    sandboxes,
    ids,
    leftovers: () => tracesOf({ ids }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

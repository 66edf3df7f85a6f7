import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { assetsSchema, type Assets } from '#host/assets.ts';
import { createLog, silentLog, type Log } from '#host/log.ts';
import { run } from '#host/run.ts';
import { openImageStore } from '#image/image-store.ts';
import { connectLink } from '#link/connect-link.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import { defaultLimits, type SandboxLimits } from '#sandbox/limits.ts';
import { openSandboxes, type OpenSandboxes } from '#sandbox/sandboxes.ts';
import { makeScratchDisk } from '#storage/scratch-disk.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';

/** A whole node in a directory of its own, with the real parts: what `podvm` is made of. */
export interface House extends AsyncDisposable {
  readonly directory: string;
  readonly sandboxes: OpenSandboxes;
  /** VMMs and network namespaces of its sandboxes that are still there; empty unless something leaked. */
  leftovers(): Promise<readonly string[]>;
}

const isRequired = process.env['PODVM_REQUIRE_VM'] === '1';
const assetsRoot = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';

/** Why whole-VM tests cannot run here, or false; a reason is an error where they are required. */
export async function whyNoVm(): Promise<string | false> {
  const reason =
    process.getuid?.() !== 0 ? 'needs root' : (await readAssets()) === undefined ? 'needs `podvm setup`' : '';
  if (reason === '') return false;
  if (isRequired) throw new Error(`whole-VM tests are required, but: ${reason}`);
  return reason;
}

async function readAssets(): Promise<Assets | undefined> {
  try {
    return v.parse(assetsSchema, JSON.parse(await readFile(join(assetsRoot, 'assets/current.json'), 'utf8')));
  } catch {
    return undefined;
  }
}

export interface HouseOptions {
  readonly limits?: Partial<SandboxLimits>;
  /** Directory of an earlier house, whose process was killed. */
  readonly earlier?: string;
  /** Directory of templates; default: those that set-up made. */
  readonly templates?: string;
  /** How far the house's clock is ahead, in `ms`. */
  readonly aheadMs?: number;
}

export async function openHouse({ limits, earlier, ...options }: HouseOptions = {}): Promise<House> {
  const assets = await readAssets();
  if (assets === undefined) throw new Error('no assets');
  const directory = earlier ?? (await mkdtemp('/var/tmp/podvm-vm-'));
  const signal = new AbortController().signal;
  const log: Log =
    process.env['PODVM_TEST_LOG'] === undefined ? silentLog : createLog('debug', (line) => process.stderr.write(line));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  await run('chmod', ['0711', directory]);

  undo.defer(() => removeDefaultNetwork(join(directory, 'network'), signal)); // its bridge stays for the next pod otherwise
  const ids: string[] = earlier === undefined ? [] : await readdir(join(earlier, 'sandboxes'));
  const surroundings = {
    nowMs: () => Date.now() + (options.aheadMs ?? 0),
    monotonicNs: () => process.hrtime.bigint(),
    randomBytes(count: number) {
      const bytes = randomBytes(count);
      ids.push(bytes.toString('hex')); // among them are those of the sandboxes
      return bytes;
    },
  };
  const open = async () => {
    const parts = {
      driver: createQemuDriver({
        assets,
        accelerator: 'tcg',
        templates: options.templates ?? join(assetsRoot, 'templates'),
      }),
      network: createHostNetwork({ stateDir: join(directory, 'network'), mayOpenTunDevice: true, log }),
      images: await openImageStore({ directory: join(directory, 'images'), sysroot: assets.sysroot, log }),
      makeScratchDisk,
      connectLink,
    };
    return await openSandboxes(
      { directory, parts, log, surroundings, limits: { ...defaultLimits, ...limits } },
      signal,
    );
  };
  const sandboxes = undo.use(await open());
  const owned = undo.move();
  return {
    directory,
    sandboxes,
    leftovers: () => leftovers(ids),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function leftovers(ids: readonly string[]): Promise<readonly string[]> {
  const isOurs = (text: string) => ids.some((id) => text.includes(id));
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const vmms = await Promise.all(
    pids.map(async (pid) => {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return isOurs(command) ? [`process ${pid}`] : [];
    }),
  );
  const { stdout: netns } = await run('ip', ['-o', 'netns', 'list']);
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  return [...vmms.flat(), ...[...netns.split('\n'), ...mounts.split('\n')].filter(isOurs)];
}

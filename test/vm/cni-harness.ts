import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { createHostNetwork, defaultPluginDirs, type CniConfigDirectory } from '#network/host-network.ts';
import type { Attachment, AttachmentRequest, Network } from '#network/network.ts';
import { tracesOf } from '../leaks.ts';

/** A node's network by CNI configurations that a test writes, without machines. Disposing removes all of it. */
export interface CniHarness extends AsyncDisposable {
  readonly directory: string;
  /** Directory of CNI configurations, and the one of plugins besides the node's own. */
  readonly configDirectory: string;
  readonly pluginDirectory: string;
  /** Directory of addresses: host-local's `dataDir`. */
  readonly ipamDirectory: string;
  /** Opens the network as a newly started process does; by default plugins get 20 s. */
  open(orElse?: CniConfigDirectory['orElse'], pluginTimeoutMs?: number): Network;
  /** Writes a configuration atomically, as installers do. */
  configure(file: string, plugins: readonly object[], more?: object): Promise<void>;
  /** Writes a plugin of the test, a shell script that starts in `directory`. */
  writePlugin(name: string, script: string): Promise<void>;
  attach(network: Network, more?: Partial<AttachmentRequest>): Promise<Attachment>;
  /** Asserts that no attachment and no address is left. */
  assertNothingLeft(): Promise<void>;
}

export const soon = (): AbortSignal => AbortSignal.timeout(60_000);

/** Network of every configuration. Its firewall chains have this name, by which leaks are found. */
const networkName = 'podvm';

export async function openCniHarness(): Promise<CniHarness> {
  const directory = await mkdtemp('/var/tmp/podvm-cni-');
  const [stateDir, configDirectory, pluginDirectory, ipamDirectory] = ['state', 'net.d', 'bin', 'ipam'].map((name) =>
    join(directory, name),
  ) as [string, string, string, string]; // SAFE: one for each
  await mkdir(configDirectory);
  await mkdir(pluginDirectory);
  const ids: string[] = [];
  const mark = directory.slice(-6).toLowerCase();
  const open: CniHarness['open'] = (orElse = 'refuse', pluginTimeoutMs = 20_000) =>
    createHostNetwork({
      stateDir,
      cniConfig: { directory: configDirectory, orElse },
      cniPluginDirs: [pluginDirectory, ...defaultPluginDirs],
      pluginTimeoutMs,
      log: silentLog,
    });
  return {
    directory,
    configDirectory,
    pluginDirectory,
    ipamDirectory,
    open,
    async configure(file, plugins, more = {}) {
      const conflist = { cniVersion: '1.0.0', name: networkName, plugins, ...more };
      await writeFile(join(configDirectory, '.new'), JSON.stringify(conflist));
      await rename(join(configDirectory, '.new'), join(configDirectory, file));
    },
    async writePlugin(name, script) {
      const path = join(pluginDirectory, name);
      await writeFile(path, `#!/bin/sh\ncd ${directory}\n${script}\n`);
      await chmod(path, 0o755);
    },
    attach(network, more = {}) {
      const sandboxId = more.sandboxId ?? `c-${mark}-${ids.length + 1}`;
      ids.push(sandboxId);
      const pod = { podName: 'pod', podNamespace: 'default', podUid: 'uid' };
      const request = { ...pod, mode: 'cni', hostPorts: [], tapOwnerUid: 64_999, ...more, sandboxId } as const;
      return network.prepare(request, soon());
    },
    async assertNothingLeft() {
      assert.deepEqual(await tracesOf({ ids }), []);
      assert.deepEqual(await readdir(join(stateDir, 'attachments')).catch(() => []), []);
      const kept = (await readdir(join(ipamDirectory, networkName)).catch(() => [])).filter((file) =>
        /^[0-9a-f.:]+$/.test(file),
      );
      assert.deepEqual(kept, []);
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}

/** A bridge of a test, named as by `ip`; removed at the end. */
export async function makeBridge(name: string): Promise<AsyncDisposable> {
  await run('ip', ['link', 'add', name, 'type', 'bridge']);
  await run('ip', ['link', 'set', name, 'up']);
  return { [Symbol.asyncDispose]: async () => void (await run('ip', ['link', 'delete', name])) };
}

/** Returns the output of a command that runs in the network namespace of an attachment. */
export async function inside({ netns }: Attachment, program: string, ...args: readonly string[]): Promise<string> {
  return (await run('nsenter', [`--net=${netns}`, program, ...args])).stdout;
}

import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { createHostNetwork, defaultPluginDirs } from '#network/host-network.ts';
import type { Attachment, Network } from '#network/network.ts';
import { tracesOf } from '../leaks.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};

/** A network of `ptp` and one more plugin, a shell script that misbehaves. */
interface Bench extends AsyncDisposable {
  readonly network: Network;
  /** Opens the network as the next process. */
  reopen(): Network;
  prepare(): Promise<Attachment>;
  assertNothingLeft(): Promise<void>;
}

let made = 0;

async function openHarness(script: string | undefined): Promise<Bench> {
  const directory = await mkdtemp('/var/tmp/podvm-cni-');
  const [stateDir, configDir, pluginDir] = ['state', 'net.d', 'bin'].map((name) => join(directory, name));
  assert.ok(stateDir && configDir && pluginDir);
  await mkdir(configDir);
  await mkdir(pluginDir);
  const ipam = { type: 'host-local', dataDir: join(directory, 'ipam'), ranges: [[{ subnet: '10.219.7.0/24' }]] };
  const plugins = [{ type: 'ptp', ipMasq: true, ipam }, { type: 'misbehaves' }];
  await writeFile(join(configDir, '10.conflist'), JSON.stringify({ cniVersion: '1.0.0', name: 'podvm', plugins }));
  if (script !== undefined) {
    const path = join(pluginDir, 'misbehaves');
    await writeFile(path, `#!/bin/sh\ncd ${directory}\n${script}\n`);
    await chmod(path, 0o755);
  }
  const open = () =>
    createHostNetwork({
      stateDir,
      cniConfig: { directory: configDir, orElse: 'refuse' },
      cniPluginDirs: [pluginDir, ...defaultPluginDirs],
      pluginTimeoutMs: 700,
      log: silentLog,
    });
  const network = open();
  const sandboxId = `c-${directory.slice(-6).toLowerCase()}-${(made += 1)}`;
  return {
    network,
    reopen: open,
    prepare: () =>
      network.prepare(
        {
          sandboxId,
          podName: 'pod',
          podNamespace: 'default',
          podUid: 'uid',
          mode: 'cni',
          hostPorts: [],
          tapOwnerUid: 64_999,
        },
        soon(),
      ),
    async assertNothingLeft() {
      const isExpected = (trace: string) => /^file (state|net\.d|bin|ipam|had-trouble)(\/|$)/.test(trace);
      const traces = await tracesOf({ directory, ids: [sandboxId] });
      assert.deepEqual(
        traces.filter((trace) => !isExpected(trace)),
        [],
      );
      assert.deepEqual(await readdir(join(stateDir, 'attachments')), []);
      const addresses = await readdir(join(directory, 'ipam', 'podvm')).catch(() => []);
      assert.deepEqual(
        addresses.filter((file) => /^[0-9.]+$/.test(file)),
        [],
      );
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}

/** A script whose DEL succeeds, as that of a correct plugin does. */
const onAdd = (what: string) => `[ $CNI_COMMAND = DEL ] && exit 0; ${what}`;

describe('a CNI plugin that', { skip, timeout: 120_000 }, () => {
  const failures: readonly { does: string; script: string | undefined; error: ErrorKind }[] = [
    { does: 'is not there', script: undefined, error: 'failedPrecondition' },
    { does: 'hangs', script: onAdd('exec sleep 1000'), error: 'timeout' },
    { does: 'hangs in a child that holds its output', script: onAdd('sleep 1001; true'), error: 'timeout' },
    { does: 'prints garbage', script: onAdd('echo "{not json"'), error: 'corrupt' },
    { does: 'prints the wrong thing', script: onAdd('echo "[1]"'), error: 'corrupt' },
    { does: 'prints without end', script: onAdd('exec yes'), error: 'exhausted' },
    { does: 'fails without a word', script: onAdd('exit 7'), error: 'internal' },
    { does: 'dies of a signal', script: onAdd('kill -SEGV $$'), error: 'internal' },
    {
      does: 'says to try again',
      script: onAdd(`echo '{"cniVersion":"1.0.0","code":11,"msg":"later"}'; exit 1`),
      error: 'unavailable',
    },
  ];
  for (const { does, script, error } of failures) {
    test(`${does} is reported, and leaves nothing`, async () => {
      await using harness = await openHarness(script);
      const attachment = await harness.prepare();
      await assert.rejects(attachment.connect(soon()), kind(error));
      await attachment[Symbol.asyncDispose]();
      await harness.assertNothingLeft();
    });
  }

  test('fails once at DEL is called again at once', async () => {
    await using harness = await openHarness(failingDel(1));
    const attachment = await harness.prepare();
    await assert.rejects(attachment.connect(soon()), kind('internal'));
    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });

  test('fails at DEL keeps its record, and is called again by dispose', async () => {
    await using harness = await openHarness(failingDel(2));
    const attachment = await harness.prepare();
    await assert.rejects(attachment.connect(soon()), kind('internal'));
    await assert.rejects(attachment[Symbol.asyncDispose](), kind('internal'));
    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });

  test('fails at DEL is called again by the next process', async () => {
    await using harness = await openHarness(failingDel(2));
    const attachment = await harness.prepare();
    await assert.rejects(attachment.connect(soon()), kind('internal'));
    await assert.rejects(attachment[Symbol.asyncDispose](), kind('internal'));
    assert.deepEqual(await harness.reopen().collect(new Set(), soon()), [attachment.sandboxId]);
    await harness.assertNothingLeft();
  });

  test('is cancelled while it hangs leaves nothing, at once', async () => {
    await using harness = await openHarness(onAdd('touch had-trouble; sleep 1002; true'));
    const attachment = await harness.prepare();
    const stop = new AbortController();
    const connecting = attachment.connect(stop.signal);
    setTimeout(() => stop.abort(), 300);
    await assert.rejects(connecting, kind('cancelled'));
    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });
});

/** Fails at ADD, and then at the first `times` DELs, which it counts in `had-trouble`. */
const failingDel = (times: number) =>
  `[ $CNI_COMMAND = ADD ] && exit 3
  mkdir -p had-trouble; touch had-trouble/$$
  [ $(ls had-trouble | wc -l) -gt ${times} ] || exit 3`;

describe('prepare()', { skip, timeout: 60_000 }, () => {
  test('leaves nothing when the tap cannot be made', async () => {
    await using harness = await openHarness('exit 0');
    const sandboxId = 'c-no-tap';
    const request = { sandboxId, podName: 'p', podNamespace: 'd', podUid: 'u', mode: 'cni', hostPorts: [] } as const;
    await assert.rejects(harness.network.prepare({ ...request, tapOwnerUid: Number.NaN }, soon()), kind('internal'));
    assert.deepEqual(await tracesOf({ ids: [sandboxId] }), []);
    await (await harness.network.prepare({ ...request, tapOwnerUid: 64_999 }, soon()))[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });
});

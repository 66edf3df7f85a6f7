import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { netnsPath } from '#network/netns.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox, SandboxSpec } from '#sandbox/sandbox.ts';
import { runInBuildRoot } from '#setup/parts/build-root.ts';
import { type Node, openNode, readAssets, whyNoVm } from './node.ts';

/**
 * A neighbour that claims to be the router (`test/attacks/router-advertisement.c`). The frame is sent on the node's end
 * of the pod's own link, where any CNI network would deliver it, so filters of the network do not matter.
 */
const skip = await whyNoVm();
const minute = () => AbortSignal.timeout(60_000);
const image = 'localhost/podvm/base:latest';
const ids = { containerId: 0, hostId: 131_072, size: 65_536 };

const pods = {
  'with the guest’s users': {},
  'with users of its own': { userNamespace: { uids: [ids], gids: [ids] } },
} as const satisfies Record<string, Partial<SandboxSpec>>;

describe('a router advertisement of a neighbour', { skip, timeout: 180_000 }, () => {
  let node: Node;
  let directory: string;

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-advertisement-');
    await compile(directory);
    node = await openNode();
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
    assert.deepEqual(await node.leftovers(), []);
  });

  /** Returns a pod's addresses and routes before and after the attack; the pod is left running. */
  const attack = async (name: string, more: Partial<SandboxSpec>) => {
    const pod = await node.sandboxes.run({ ...sandboxSpec, name, ...more }, minute());
    const main = await pod.createContainer({ ...containerSpec, image, command: ['sleep', '1000'] }, minute());
    await main.start(minute());
    const look = () => said(main, 'ip -6 addr show dev eth0 scope global; ip -6 route; ip route');
    // A moment after its start the guest's kernel may not have seen yet that the link is up.
    const upLook = async () => {
      const text = await look();
      return text.includes('NO-CARRIER') || !text.includes('fe80::/64') ? undefined : text;
    };
    const before = (await poll(upLook, { everyMs: 100, signal: minute() })) ?? assert.fail('the link is not up');
    const link = await linkOf(pod);
    for (const deadline = minute(); (await advertisementsOf(main)) === 0; deadline.throwIfAborted()) {
      await run(join(directory, 'router-advertisement'), [link]);
    }
    return { main, before, after: await look() };
  };

  for (const [what, more] of Object.entries(pods)) {
    test(`reaches a pod ${what}, and changes neither its addresses nor its routes`, async () => {
      const { main, before, after } = await attack(`victim-${Object.keys(more).length}`, more);
      assert.equal(after, before);
      const switches = await said(
        main,
        'cd /proc/sys/net; cat ipv6/conf/*/accept_ra ipv6/conf/*/autoconf ipv[46]/conf/*/accept_redirects',
      );
      assert.deepEqual(new Set(switches.trim().split('\n')), new Set(['0']));
    });
  }

  test('is accepted by a pod whose sysctls allow it', async () => {
    const { before, after } = await attack('asks', { sysctls: { 'net.ipv6.conf.eth0.accept_ra': '1' } });
    assert.doesNotMatch(before, /default via fe80::bad/);
    assert.match(after, /default via fe80::bad/);
  });
});

/** Count of advertisements that the guest's kernel has accepted. */
async function advertisementsOf(container: Container): Promise<number> {
  return Number(/^Icmp6InRouterAdvertisements\s+(\d+)$/m.exec(await said(container, 'cat /proc/net/snmp6'))?.[1]);
}

/** Name of the node's end of the pod's veth. */
async function linkOf({ id }: Sandbox): Promise<string> {
  const { stdout } = await run('ip', ['-n', basename(netnsPath(id)), '-o', 'link', 'show', 'eth0']);
  const index = /eth0@if(\d+)/.exec(stdout)?.[1];
  for (const name of await readdir('/sys/class/net')) {
    const own = await readFile(`/sys/class/net/${name}/ifindex`, 'latin1').catch(() => '');
    if (own.trim() === index) return name;
  }
  return assert.fail(`no link ${index}`);
}

async function said(container: Container, script: string): Promise<string> {
  const exec = await container.exec({ command: ['sh', '-c', script], tty: false, stdin: false }, minute());
  exec.stderr?.resume();
  const bytes = await Array.fromAsync(exec.stdout as AsyncIterable<Buffer>);
  await exec.exited;
  return Buffer.concat(bytes).toString();
}

async function compile(workDir: string): Promise<void> {
  const { sysroot } = (await readAssets()) ?? assert.fail('no assets');
  const [buildRoot = assert.fail('no build root')] = globSync(join(sysroot, '../..', 'build-root-*/root'));
  const name = 'router-advertisement';
  await runInBuildRoot({
    buildRoot,
    workDir,
    program: 'gcc',
    args: ['-std=gnu17', '-Wall', '-Wextra', '-Werror', '-O1', '-static', '-o', name, `/attacks/${name}.c`],
    readOnly: { '/attacks': join(import.meta.dirname, '../attacks') },
    signal: minute(),
  });
}

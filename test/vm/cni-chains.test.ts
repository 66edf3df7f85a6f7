import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import type { Network } from '#network/network.ts';
import { inside, makeBridge, openCniHarness, soon, type CniHarness } from './cni-harness.ts';
import { whyNoVm } from './node.ts';

/** CNI configurations as clusters have them, run unchanged, without machines. */
const skip = await whyNoVm();

/** Two families, and more than an address: routes and name servers. */
const ipam = ({ ipamDirectory }: CniHarness, subnet = '10.219.16.0/24') => ({
  type: 'host-local',
  dataDir: ipamDirectory,
  ranges: [[{ subnet }], [{ subnet: 'fd12:5e11:1::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '192.168.77.0/24', gw: '10.219.16.254' }, { dst: '::/0' }],
});

const bridge = (harness: CniHarness, name: string) => ({
  type: 'bridge',
  bridge: name,
  isGateway: true,
  ipMasq: true,
  mtu: 1400,
  capabilities: { mac: true },
  ipam: ipam(harness),
});

const bandwidths = { 'kubernetes.io/ingress-bandwidth': '20M', 'kubernetes.io/egress-bandwidth': '10M' };
const hostPorts = (['TCP', 'UDP', 'SCTP'] as const).map((protocol) => ({
  hostPort: 19_860,
  containerPort: 80,
  protocol,
}));

describe('a CNI chain', { skip, timeout: 240_000 }, () => {
  test('of bridge, tuning, portmap, bandwidth and firewall applies its configuration, and removes it', async () => {
    await using harness = await openCniHarness();
    await using _bridge = await makeBridge('pvmtest0');
    const portmap = { type: 'portmap', snat: true, capabilities: { portMappings: true } };
    const bandwidth = { type: 'bandwidth', capabilities: { bandwidth: true } };
    const tuning = { type: 'tuning', sysctl: { 'net.ipv4.conf.eth0.arp_notify': '1' } };
    const firewall = { type: 'firewall', backend: 'iptables' };
    await harness.configure('10.conflist', [bridge(harness, 'pvmtest0'), tuning, portmap, bandwidth, firewall]);
    const ifbsBefore = await ifbs();

    await using attachment = await harness.attach(harness.open(), { annotations: bandwidths, hostPorts });
    const guest = await attachment.connect(soon());

    const [nic] = guest.interfaces;
    assert.equal(nic?.mtu, 1400);
    assert.equal(nic.mac, attachment.tap?.mac);
    assert.match(nic.addresses.join(' '), /^10\.219\.16\.\d+\/24 fd12:5e11:1::[0-9a-f]+\/64$/);
    const way = { destination: '192.168.77.0/24', gateway: '10.219.16.254' };
    assert.ok(guest.routes.some((route) => route.destination === way.destination && route.gateway === way.gateway));
    for (const destination of ['0.0.0.0/0', '::/0'])
      assert.ok(guest.routes.some((route) => route.destination === destination));
    // The address stays where tools look for it, and the tap is as large as the interface.
    assert.match(await inside(attachment, 'ip', '-o', 'address', 'show', 'eth0'), /10\.219\.16\./);
    assert.match(await inside(attachment, 'ip', '-o', 'link', 'show', 'tap0'), / mtu 1400 /);
    assert.equal((await inside(attachment, 'cat', '/proc/sys/net/ipv4/conf/eth0/arp_notify')).trim(), '1');
    const rules = (await run('iptables', ['-t', 'nat', '-S'])).stdout;
    for (const protocol of ['tcp', 'udp', 'sctp']) {
      assert.match(rules, new RegExp(`-p ${protocol} .*--dport 19860 .*-j DNAT --to-destination 10\\.219\\.16\\.`));
    }
    assert.match((await run('iptables', ['-S', 'CNI-FORWARD'])).stdout, /10\.219\.16\.\d+\/32 .*-j ACCEPT/);
    const qdiscs = (await run('tc', ['qdisc', 'show'])).stdout;
    assert.match(qdiscs, /qdisc tbf .* dev veth\S+ .*rate 20Mbit/);
    assert.match(qdiscs, /qdisc tbf .* dev bwp\S+ .*rate 10Mbit/);

    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
    assert.equal(await ifbs(), ifbsBefore);
  });

  test('sets its own DNS', async () => {
    await using harness = await openCniHarness();
    await harness.writePlugin(
      'names',
      answering({ dns: { nameservers: ['10.96.0.10'], domain: 'cluster.local', options: ['ndots:5'] } }),
    );
    await harness.configure('10.conflist', [{ type: 'ptp', ipam: ipam(harness) }, { type: 'names' }]);
    await using attachment = await harness.attach(harness.open());
    const { dns } = await attachment.connect(soon());
    assert.deepEqual(dns, { nameservers: ['10.96.0.10'], searches: ['cluster.local'], options: ['ndots:5'] });
  });

  for (const [type, more] of [
    ['ptp', { ipMasq: true }],
    ['macvlan', { master: 'pvmtest1', mode: 'bridge' }],
  ] as const) {
    test(`of ${type} is joined with the tap unchanged`, async () => {
      await using harness = await openCniHarness();
      await using _master = await makeBridge('pvmtest1');
      await harness.configure('10.conflist', [{ type, ...more, ipam: ipam(harness) }]);
      await using attachment = await harness.attach(harness.open());
      const guest = await attachment.connect(soon());
      assert.match(guest.interfaces[0]?.addresses[0] ?? '', /^10\.219\.16\./);
      const filters = await inside(attachment, 'tc', 'filter', 'show', 'dev', 'eth0', 'parent', 'ffff:');
      assert.match(filters, /Egress Redirect to device tap0/);
      await attachment[Symbol.asyncDispose]();
      await harness.assertNothingLeft();
    });
  }

  test('without a free address fails with a message, leaves nothing, and serves the next pod once there is one', async () => {
    await using harness = await openCniHarness();
    const tiny = { ...ipam(harness), ranges: [[{ subnet: '10.219.16.0/30' }]], routes: [] };
    await harness.configure('10.conflist', [{ type: 'ptp', ipam: tiny }]);
    const network = harness.open();
    await using first = await harness.attach(network);
    await first.connect(soon());
    await using second = await harness.attach(network);
    await assert.rejects(second.connect(soon()), { kind: 'internal', message: /no IP addresses available/ });
    await second[Symbol.asyncDispose]();
    await first[Symbol.asyncDispose]();
    await using third = await harness.attach(network);
    assert.equal((await third.connect(soon())).interfaces.length, 1);
    await third[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });

  test('with an invalid bandwidth is refused by name before anything is made', async () => {
    await using harness = await openCniHarness();
    const annotations = { 'kubernetes.io/egress-bandwidth': 'fast' };
    await assert.rejects(harness.attach(harness.open(), { annotations }), {
      kind: 'invalid',
      message: /egress-bandwidth/,
    });
    await harness.assertNothingLeft();
  });
});

describe('check() of a CNI chain', { skip, timeout: 120_000 }, () => {
  /** Returns the check of the only attachment, as a newly started process gets it; undefined if it has none. */
  const checked = async (network: Network, signal = soon()) => {
    const [check, ...more] = await network.check(signal);
    assert.deepEqual(more, []);
    return check;
  };

  test('finds no fault in a new one, and later says what is missing, by plugin', async () => {
    await using harness = await openCniHarness();
    await using _bridge = await makeBridge('pvmtest2');
    const tuning = { type: 'tuning', sysctl: { 'net.ipv4.conf.eth0.arp_notify': '1' } };
    const portmap = { type: 'portmap', snat: true, capabilities: { portMappings: true } };
    const bandwidth = { type: 'bandwidth', capabilities: { bandwidth: true } };
    const firewall = { type: 'firewall', backend: 'iptables' };
    await harness.configure('10.conflist', [bridge(harness, 'pvmtest2'), tuning, portmap, bandwidth, firewall]);
    await using attachment = await harness.attach(harness.open(), { annotations: bandwidths });
    assert.equal(await checked(harness.open()), undefined, 'what is not connected yet is nothing to look at');
    const [nic] = (await attachment.connect(soon())).interfaces;
    const [address = ''] = nic?.addresses ?? [];
    const whose = {
      sandboxId: attachment.sandboxId,
      podName: 'pod',
      podNamespace: 'default',
      network: 'podvm',
    };
    const plugins = 'bridge, tuning, portmap, bandwidth, firewall';
    assert.deepEqual(await checked(harness.open()), { ...whose, verdict: 'well', detail: `found well by ${plugins}` });

    const rules = (await run('iptables', ['-S', 'CNI-FORWARD'])).stdout.split('\n');
    const rule = rules.find((line) => line.startsWith(`-A CNI-FORWARD -s ${address.replace('/24', '/32')} `)) ?? '';
    await run('iptables', ['-w', '10', '-D', ...rule.split(' ').slice(1)]);
    const noRule = await checked(harness.open());
    assert.equal(noRule?.verdict, 'wrong');
    assert.match(noRule.detail, /CNI plugin firewall \(CHECK, network podvm\): error 999: expected rule .* not found/);

    await inside(attachment, 'ip', 'address', 'delete', address, 'dev', 'eth0');
    const noAddress = await checked(harness.open());
    assert.equal(noAddress?.verdict, 'wrong');
    assert.match(noAddress.detail, new RegExp(`CNI plugin bridge .*error 999: Failed to match addr ${address}`));

    // Needed by DEL: the plugin removes its NAT for the addresses that it finds.
    await inside(attachment, 'ip', 'address', 'add', address, 'dev', 'eth0');
    await attachment[Symbol.asyncDispose]();
    assert.equal(await checked(harness.open()), undefined);
    await harness.assertNothingLeft();
  });

  test('does not wait for a hanging plugin beyond its time limit', async () => {
    await using harness = await openCniHarness();
    await harness.writePlugin('hangs', `[ $CNI_COMMAND = CHECK ] && exec sleep 600\n${answering({})}`);
    await harness.configure('10.conflist', [{ type: 'ptp', ipam: ipam(harness) }, { type: 'hangs' }]);
    await using attachment = await harness.attach(harness.open());
    await attachment.connect(soon());
    const cut = await checked(harness.open('refuse', 500));
    assert.equal(cut?.verdict, 'wrong');
    assert.match(cut.detail, /hangs.*500 ms/);
    const late = await checked(harness.open(), AbortSignal.timeout(500));
    assert.deepEqual([late?.verdict, late?.detail], ['unasked', 'not checked: no time was left']);
    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });

  for (const [more, why] of [
    [{ disableCheck: true }, /disableCheck/],
    [{ cniVersion: '0.3.1' }, /CNI 0\.3\.1 has no CHECK/],
  ] as const) {
    test(`calls no plugin of a network with ${JSON.stringify(more)}`, async () => {
      await using harness = await openCniHarness();
      await harness.writePlugin('sad', `[ $CNI_COMMAND = CHECK ] && exit 1\n${answering({})}`);
      await harness.configure('10.conflist', [{ type: 'ptp', ipam: ipam(harness) }, { type: 'sad' }], more);
      await using attachment = await harness.attach(harness.open());
      await attachment.connect(soon());
      const check = await checked(harness.open());
      assert.equal(check?.verdict, 'unasked');
      assert.match(check.detail, why);
      await attachment[Symbol.asyncDispose]();
      await harness.assertNothingLeft();
    });
  }
});

describe('the CNI directory', { skip, timeout: 120_000 }, () => {
  test('is watched: a missing configuration is reported until it appears, and again when it is removed', async () => {
    await using harness = await openCniHarness();
    const network = harness.open();
    const messageNow = async () => {
      const readiness = await network.readiness();
      return readiness.isReady ? readiness.name : readiness.message;
    };
    assert.match(await messageNow(), /no CNI configuration .* in .*net\.d/);
    await harness.configure('10.conflist', [{ type: 'cluster-plugin' }]);
    assert.match(await messageNow(), /CNI plugin cluster-plugin: not found/);
    await harness.configure('10.conflist', [{ type: 'ptp', ipam: ipam(harness) }], { name: 'cluster' });
    assert.equal(await messageNow(), 'cluster');
    await harness.configure('05.conflist', []);
    assert.match(await messageNow(), /05\.conflist/);
    await rm(harness.configDirectory, { recursive: true });
    await using attachment = await harness.attach(network);
    await assert.rejects(attachment.connect(soon()), { kind: 'failedPrecondition', message: /no CNI configuration/ });
    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });

  test('replaces the built-in network for machines that were connected ahead', async () => {
    await using harness = await openCniHarness();
    const network = harness.open('builtIn');
    assert.deepEqual(await network.readiness(), { isReady: true, name: 'podvm', path: undefined });
    await using attachment = await harness.attach(network);
    await attachment.connectAhead(soon());
    await harness.configure('10.conflist', [{ type: 'ptp', mtu: 1300, ipam: ipam(harness) }], { name: 'cluster' });
    attachment.assign({ podName: 'late', podNamespace: 'default', podUid: 'uid', hostPorts: [] });
    const [nic] = (await attachment.connect(soon())).interfaces;
    assert.match(nic?.addresses[0] ?? '', /^10\.219\.16\./);
    assert.match(await inside(attachment, 'ip', '-o', 'link', 'show', 'tap0'), / mtu 1300 /);
    const redirects = await inside(attachment, 'tc', 'filter', 'show', 'dev', 'tap0', 'parent', 'ffff:');
    assert.equal(redirects.match(/Egress Redirect to device eth0/g)?.length, 1);
    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
    await removeDefaultNetwork(join(harness.directory, 'state'), soon());
  });

  test('of version 1.1 makes plugins collect what no attachment holds', async () => {
    await using harness = await openCniHarness();
    await harness.writePlugin('collects', `[ $CNI_COMMAND = GC ] && exec cat >collected\n${answering({})}`);
    const plugins = [{ type: 'ptp', ipam: ipam(harness) }, { type: 'collects' }];
    // Debian's ptp knows 1.0 at most, and its refusal must not keep the next plugin from being asked.
    await harness.configure('10.conflist', plugins);
    await using attachment = await harness.attach(harness.open());
    await attachment.connect(soon());
    await harness.open().collect(new Set([attachment.sandboxId]), soon());
    await assert.rejects(readFile(join(harness.directory, 'collected')), { code: 'ENOENT' });
    await harness.configure('10.conflist', plugins, { cniVersion: '1.1.0' });
    await harness.open().collect(new Set([attachment.sandboxId]), soon());
    const input: unknown = JSON.parse(await readFile(join(harness.directory, 'collected'), 'utf8'));
    assert.deepEqual(input, {
      type: 'collects',
      name: 'podvm',
      cniVersion: '1.1.0',
      'cni.dev/valid-attachments': [{ containerID: attachment.sandboxId, ifname: 'eth0' }],
    });
    await attachment[Symbol.asyncDispose]();
    await harness.assertNothingLeft();
  });
});

/** A plugin's script that passes on the previous result, with additions. */
const answering = (more: object) => `[ $CNI_COMMAND = ADD ] || exit 0
  exec ${process.execPath} -e 'const { prevResult } = JSON.parse(require("fs").readFileSync(0));
    console.log(JSON.stringify({ ...prevResult, ...${JSON.stringify(more)} }))'`;

/** Devices that the plugin \`bandwidth\` makes on the node. */
async function ifbs(): Promise<string> {
  return (await run('ip', ['-o', 'link', 'show', 'type', 'ifb'])).stdout.replace(/^\d+: /gm, '');
}

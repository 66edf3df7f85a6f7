import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, readlink } from 'node:fs/promises';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import type { Crictl } from '../conformance/crictl.ts';
import type { ContainerdNode } from './containerd-node.ts';
import { baseImage, Pod } from './pod.ts';
import { execSync, removePods } from './tour.ts';
import { type Steps, walkSteps } from './walk-steps.ts';

export interface DelegateTourOptions {
  /** Client of podvm's CRI socket; podvm's delegate is `containerd`. */
  readonly crictl: Crictl;
  /** Client of containerd itself. */
  readonly direct: Crictl;
  readonly containerd: ContainerdNode;
  readonly work: string;
  readonly say: (text: string) => void;
  /** Kills the daemon of podvm; the next one serves when it resolves. */
  readonly replaceDaemon: () => Promise<void>;
}

/** Pods that all steps use: one of the host's network, which runc runs, and one in a machine. */
interface Tour extends DelegateTourOptions {
  readonly host: Pod;
  readonly pod: Pod;
  /** Containers that wait. */
  readonly proxy: string;
  readonly main: string;
}

const steps: Steps<Tour> = [
  ['a pod of the network of the host has it, and runs beside one in a machine', sharesNetwork],
  ['lists, statistics and metrics show both pods', listsBoth],
  ['commands, terminals, logs and ports work in both', streams],
  ['images are one list, and an image that only one runtime has is pulled for the other', listsImages],
  ['Status and Version are those of one runtime', isOne],
  ['mounts, devices and processes of the host are in a privileged pod of kube-system, and not elsewhere', actsOnHost],
  ['while containerd is away its pods say so, pods in machines go on, and it is found again', outlivesContainerd],
  ['the next daemon of podvm has both pods', outlivesDaemon],
  ['both pods are removed, and the next ones run', leaves],
];

const hostPod = {
  hostname: '', // as a kubelet does: it would be the node's
  metadata: { name: 'proxy', namespace: 'kube-system', uid: 'uid-proxy', attempt: 0 },
  linux: { cgroup_parent: '/', security_context: { namespace_options: { network: 2 } } }, // containerd has no figures without one
};

/** Uses podvm and containerd as one runtime. Errors: all steps that failed. */
export async function tourDelegate(options: DelegateTourOptions): Promise<void> {
  const { crictl, work, say } = options;
  const wait = 'trap "exit 0" TERM; echo started; while :; do sleep 0.2; done';
  const host = await Pod.run(crictl, work, 'proxy', '', hostPod);
  const pod = await Pod.run(crictl, work, 'machine', '');
  const proxy = await host.start('proxy', wait);
  const main = await pod.start('main', wait);
  try {
    await walkSteps(steps, { ...options, host, pod, proxy, main }, say);
  } finally {
    await removePods(crictl);
  }
}

const idsOf = (text: string) => text.trim().split('\n').filter(Boolean).sort();

async function sharesNetwork({ crictl, direct, host, pod, proxy, main }: Tour): Promise<void> {
  const links = async (container: string) => await crictl.run('exec', container, 'ls', '/sys/class/net');
  assert.match(await links(proxy), /ctd0|lo/);
  assert.notEqual(await links(proxy), await links(main));
  const kernel = async (container: string) => (await crictl.run('exec', container, 'uname', '-r')).trim();
  assert.equal(await kernel(proxy), (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim());
  assert.notEqual(await kernel(main), await kernel(proxy));
  assert.deepEqual(idsOf(await direct.run('pods', '-q', '--no-trunc')), [host.id], 'containerd has only its own');
  assert.notEqual(host.id, pod.id);
}

const idSchema = v.object({ attributes: v.object({ id: v.string() }) });
const statsSchema = v.object({ stats: v.array(idSchema) });

async function listsBoth({ crictl, host, pod, proxy, main }: Tour): Promise<void> {
  assert.deepEqual(idsOf(await crictl.run('pods', '-q', '--no-trunc')), [host.id, pod.id].sort());
  assert.deepEqual(idsOf(await crictl.run('ps', '-q', '--no-trunc')), [proxy, main].sort());
  assert.deepEqual(idsOf(await crictl.run('pods', '-q', '--no-trunc', '--namespace', 'kube-system')), [host.id]);
  assert.deepEqual(idsOf(await crictl.run('ps', '-q', '--no-trunc', '--pod', host.id)), [proxy]);
  assert.match(await crictl.run('inspect', proxy.slice(0, 13)), new RegExp(proxy));
  const figured = async (command: string) =>
    (await crictl.json(statsSchema, command)).stats.map(({ attributes }) => attributes.id).sort();
  assert.deepEqual(await figured('stats'), [proxy, main].sort());
  assert.deepEqual(await figured('statsp'), [host.id, pod.id].sort());
}

async function streams({ crictl, pod, proxy, main }: Tour): Promise<void> {
  const input = randomBytes(1024 * 1024);
  const sum = createHash('sha256').update(input).digest('hex');
  for (const container of [proxy, main]) {
    const { stdout } = await crictl.try(['exec', '-i', container, 'sha256sum'], input);
    assert.equal(stdout.split(' ')[0], sum);
    await using typed = crictl.type('exec', '-it', container, 'sh', '-c', 'tty; exit 3');
    await typed.says(/\/dev\/pts\/\d+/);
    await typed.says(/exit code 3/);
    assert.equal(await typed.ends(), 1);
    assert.equal(await crictl.run('logs', container), 'started\n');
    assert.equal(await execSync(crictl, container, 'echo', 'sync'), 'sync');
  }
  await crictl.run('exec', main, 'sh', '-c', 'mkdir /www && echo page >/www/index.html && httpd -p 8080 -h /www');
  await using forward = crictl.begin('port-forward', pod.id, '0:8080');
  await forward.says(/Forwarding from 127\.0\.0\.1:\d+ -> 8080/);
}

/** Containerd 1.6 names no handlers. */
const infoSchema = v.object({ runtimeHandlers: v.nullish(v.array(v.object({ name: v.optional(v.string()) }))) });
const imagesSchema = v.object({ images: v.array(v.object({ id: v.string(), repoTags: v.array(v.string()) })) });

async function listsImages({ crictl, direct, host }: Tour): Promise<void> {
  const { images } = await crictl.json(imagesSchema, 'images');
  assert.equal(new Set(images.map(({ id }) => id)).size, images.length);
  const theirs = await direct.json(imagesSchema, 'images');
  for (const { id } of theirs.images) assert.ok(images.some((each) => each.id === id));
  assert.match(await crictl.run('inspecti', baseImage), /podvm\/base/);
  await crictl.run('imagefsinfo');
  await assert.rejects(host.create('none', 'true', { image: { image: 'localhost/none:1' } }), /none:1/);
}

async function isOne({ crictl, direct }: Tour): Promise<void> {
  assert.match(await crictl.run('version'), /RuntimeName: {2}podvm\n/);
  assert.match(await crictl.run('info'), /DelegateReady/);
  const handlersOf = async (of: Crictl) =>
    (await of.json(infoSchema, 'info')).runtimeHandlers?.map(({ name = '' }) => name) ?? [];
  const handlers = await handlersOf(crictl);
  for (const name of ['podvm-own-boot', ...(await handlersOf(direct))]) assert.ok(handlers.includes(name), name);
}

async function actsOnHost({ crictl, work }: Tour): Promise<void> {
  for (const how of ['--bind', '--make-rshared'])
    await run('mount', [...(how === '--bind' ? [how, work] : [how]), work]);
  const mounts = [{ host_path: work, container_path: '/host', propagation: 2 }];
  const linux = { security_context: { privileged: true, namespace_options: { pid: 2, network: 2 } } };
  const metadata = { name: 'driver', namespace: 'kube-system', uid: 'uid-driver', attempt: 0 };
  const driver = await Pod.run(crictl, work, 'driver', '', { ...hostPod, metadata, linux });
  try {
    const script = 'mkdir -p /host/shared && mount -t tmpfs t /host/shared; sleep 1000';
    const container = await driver.start('driver', script, { linux, mounts });
    const isMounted = async () => (await mountPoints()).includes(`${work}/shared`) || undefined;
    assert.equal(await poll(isMounted, { everyMs: 100, signal: AbortSignal.timeout(10_000) }), true);
    const ofHost = await readlink('/proc/self/ns/pid');
    assert.equal(await execSync(crictl, container, 'readlink', '/proc/self/ns/pid'), ofHost);
  } finally {
    await driver.remove();
  }
  const privileged = { linux: { security_context: { privileged: true } } };
  const other = await Pod.run(crictl, work, 'other', '', privileged);
  await assert.rejects(
    other.create('other', 'true', { ...privileged, mounts }),
    /cannot appear on the host.*handler of the delegate/,
  );
  await other.remove();
  const refused = { hostname: '', linux: hostPod.linux };
  await assert.rejects(
    Pod.run(crictl, work, 'refused', '', refused),
    /hostNetwork is not supported.*delegateNamespaces/,
  );
}

const mountPoints = async () =>
  (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').map((line) => line.split(' ')[4] ?? '');

async function outlivesContainerd({ crictl, containerd, host, pod, proxy, main }: Tour): Promise<void> {
  const both = [host.id, pod.id].sort();
  await containerd.stop();
  try {
    const { stderr } = await crictl.try(['inspectp', host.id]);
    assert.match(stderr, /Unavailable.*setting delegate/);
    assert.equal(await crictl.run('exec', main, 'echo', 'still'), 'still\n');
    assert.deepEqual(idsOf(await crictl.run('pods', '-q', '--no-trunc')), both);
    assert.match(await crictl.run('info'), /DelegateAway/);
  } finally {
    await containerd.restart();
  }
  const isBack = async () => ((await crictl.try(['inspectp', host.id])).code === 0 ? true : undefined);
  assert.equal(await poll(isBack, { everyMs: 200, signal: AbortSignal.timeout(20_000) }), true);
  assert.equal(await crictl.run('exec', proxy, 'echo', 'still'), 'still\n');
  assert.deepEqual(idsOf(await crictl.run('pods', '-q', '--no-trunc')), both);
}

async function outlivesDaemon({ crictl, replaceDaemon, host, pod, proxy, main }: Tour): Promise<void> {
  await replaceDaemon();
  assert.deepEqual(idsOf(await crictl.run('pods', '-q', '--no-trunc', '--state', 'ready')), [host.id, pod.id].sort());
  for (const container of [proxy, main]) assert.equal(await crictl.run('exec', container, 'echo', 'still'), 'still\n');
}

async function leaves({ crictl, direct, work, host, pod, proxy }: Tour): Promise<void> {
  await crictl.run('stop', '--timeout', '20', proxy);
  assert.equal((await host.ended(proxy)).exitCode, 0);
  await crictl.run('rm', proxy);
  for (const each of [host, pod]) await each.remove();
  assert.equal(await crictl.run('pods', '-q'), '');
  assert.equal(await direct.run('pods', '-q'), '');
  const next = await Pod.run(crictl, work, 'next', '', hostPod);
  await next.remove();
}

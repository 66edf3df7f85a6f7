import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { connectTestClient } from '#cri/testing/grpc-client.ts';
import { PodSandboxState, RuntimeService } from '#cri/schema/api_pb.ts';
import { goVersion } from '../conformance/go-module.ts';
import { type CliNode, openCliNode } from '../vm/cli-node.ts';
import { makeAnotherBuild } from '../vm/make-another-build.ts';
import { buildKubelet, version } from './build-kubelet.ts';
import { startKubeSystem, tourDelegate } from './delegate.ts';
import { type Kubelet, type KubeletPod, runKubelet } from './run-kubelet.ts';

/*
 * `npm run kubelet [-- --delegate]`: a real kubelet, without a cluster, runs a static pod through `podvm daemon`, or
 * one in a machine and one that containerd runs as the delegate. Needs root, the result of `podvm setup`, and a Go
 * toolchain: a machine without one gets a message, and nothing fails.
 */
const cache = '/var/cache/podvm-conformance';
const image = 'localhost/podvm/base:latest';
const pollMs = 500;
const patienceMs = 300_000;
/** Time in which a daemon serves, in `ms`: one of another build makes its agent before. */
const servingMs = 300_000;
const say = (text: string) => process.stderr.write(`kubelet: ${text}\n`);

const podOf = (hostDirectory: string) => `
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: default }
spec:
  terminationGracePeriodSeconds: 1
  securityContext: { fsGroup: 2000 }
  volumes:
    - { name: cache, emptyDir: {} }
    - { name: memory, emptyDir: { medium: Memory, sizeLimit: 8Mi } }
    - { name: host, hostPath: { path: ${hostDirectory}, type: Directory } }
    - { name: info, downwardAPI: { items: [{ path: name, fieldRef: { fieldPath: metadata.name } }] } }
  initContainers:
    - name: prepare
      image: ${image}
      imagePullPolicy: Never
      command: [sh, -c, 'echo prepared >/cache/file; echo below >/cache/part/file']
      volumeMounts: [{ name: cache, mountPath: /cache }, { name: cache, mountPath: /cache/part, subPath: part }]
  containers:
    - name: main
      image: ${image}
      imagePullPolicy: Never
      command:
        - sh
        - -c
        - |
          echo started; cat /cache/file /part/file /info/name; echo; df -k /memory | tail -1
          cat /host/question; echo answer >/host/answer
          mkdir /www; echo ok >/www/index.html; httpd -p 8080 -h /www
          trap 'echo stopping; exit 0' TERM; while :; do sleep 0.2; done
      volumeMounts:
        - { name: cache, mountPath: /cache }
        - { name: cache, mountPath: /part, subPath: part }
        - { name: memory, mountPath: /memory }
        - { name: host, mountPath: /host }
        - { name: info, mountPath: /info }
      livenessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 2, timeoutSeconds: 5 }
      readinessProbe: { exec: { command: [cat, /cache/file] }, periodSeconds: 2, timeoutSeconds: 10 }
`;

/** Waits until the only pod is as wanted. Errors: `timeout`, with its last state. */
async function becomes(
  kubelet: Kubelet,
  what: string,
  wanted: (pod: KubeletPod | undefined) => boolean,
): Promise<void> {
  const giveUpMs = Date.now() + patienceMs;
  let last = 'no answer';
  while (Date.now() < giveUpMs) {
    const pods = await kubelet.pods().catch((error: unknown) => {
      last = messageOf(error); // it does not serve yet
      return undefined;
    });
    if (pods !== undefined) {
      if (wanted(pods[0])) {
        say(`the pod ${what}`);
        return;
      }
      last = JSON.stringify(pods[0]?.status);
    }
    await delay(pollMs);
  }
  throw new PodvmError('timeout', `the pod does not become: ${what}; it is ${last}`);
}

const isReady = (pod: KubeletPod | undefined) =>
  pod?.status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True') === true;
const restartsOf = (pod: KubeletPod | undefined) => pod?.status.containerStatuses[0]?.restartCount ?? 0;

interface Machine {
  readonly sandboxId: string;
  readonly pid: number;
}

/** Returns the machine of the only sandbox that is ready. */
async function machineOf(endpoint: string): Promise<Machine> {
  using client = connectTestClient(endpoint);
  const runtime = client.of(RuntimeService);
  const { items } = await runtime.listPodSandbox({ filter: { state: { state: PodSandboxState.SANDBOX_READY } } });
  const sandboxId = items[0]?.id ?? '';
  const { info } = await runtime.podSandboxStatus({ podSandboxId: sandboxId, verbose: true });
  return { sandboxId, pid: v.parse(v.object({ pid: v.number() }), JSON.parse(info['info'] ?? '')).pid };
}

/** Asks again while the kubelet has not connected to the next daemon: it tries after longer and longer pauses. */
async function onceConnected<T>(ask: () => Promise<T>): Promise<T> {
  const giveUpMs = Date.now() + patienceMs;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!messageOf(error).includes('code = Unavailable') || Date.now() > giveUpMs) throw error;
      await delay(pollMs);
    }
  }
}

interface Tour {
  readonly kubelet: Kubelet;
  readonly endpoint: string;
  readonly hostDirectory: string;
  /** Kills the daemon; the next one, of another build, serves when it resolves. */
  readonly replaceDaemon: () => Promise<void>;
}

async function tour({ kubelet, endpoint, hostDirectory, replaceDaemon }: Tour): Promise<void> {
  await writeFile(join(hostDirectory, 'question'), 'question\n');
  await kubelet.setPod(podOf(hostDirectory));
  await becomes(kubelet, 'is ready: init container, volumes and probes', isReady);
  const logs = await kubelet.ask('/containerLogs/default/web-node/main');
  for (const words of [/^started$/m, /^prepared$/m, /^below$/m, /^web-node$/m, /\b8192\b/, /^question$/m]) {
    assert.match(logs, words);
  }
  assert.equal(await readFile(join(hostDirectory, 'answer'), 'utf8'), 'answer\n');
  say('its logs and its hostPath say what they should');
  const exec = (command: string) =>
    kubelet.ask(`/run/default/web-node/main?cmd=${command.split(' ').map(encodeURIComponent).join('+')}`, 'POST');
  assert.equal(await exec('stat -c %g /cache/file'), '2000\n');
  const stats = await kubelet.ask('/stats/summary');
  assert.match(
    stats,
    /"rootfs": \{\s+"time": "[^"]+",\s+"availableBytes": \d+,\s+"capacityBytes": \d+,\s+"usedBytes": [1-9]/,
  );
  say('commands run in it, and it has figures');

  const machine = await machineOf(endpoint);
  await exec('touch /tmp/before');
  await replaceDaemon();
  await becomes(kubelet, 'goes on under a daemon of another build', (pod) => restartsOf(pod) === 0 && isReady(pod));
  assert.deepEqual(await machineOf(endpoint), machine);
  assert.equal(await onceConnected(() => exec('ls /tmp/before')), '/tmp/before\n');

  await exec('rm /www/index.html');
  await becomes(kubelet, 'was restarted by its liveness probe', (pod) => restartsOf(pod) === 1 && isReady(pod));
  await exec('kill 1');
  await becomes(kubelet, 'was restarted after it ended', (pod) => restartsOf(pod) === 2 && isReady(pod));
  assert.match(await kubelet.ask('/containerLogs/default/web-node/main?previous=true'), /^stopping$/m);
  assert.equal(await exec('cat /cache/file'), 'prepared\n');
  say('what it wrote to its emptyDir outlived both');

  process.kill((await machineOf(endpoint)).pid, 'SIGKILL');
  await becomes(kubelet, 'came back in another machine when its own had died', (pod) => {
    return restartsOf(pod) === 3 && isReady(pod);
  });
  assert.equal(await exec('cat /cache/file /part/file'), 'prepared\nbelow\n');
  say('its init container has filled the emptyDir again');

  const stopped = await machineOf(endpoint);
  process.kill(stopped.pid, 'SIGSTOP');
  await becomes(kubelet, 'came back in another machine when its own no longer answered', (pod) => {
    return restartsOf(pod) > 3 && isReady(pod);
  });
  assert.notEqual((await machineOf(endpoint)).pid, stopped.pid);

  await kubelet.setPod('');
  await becomes(kubelet, 'is gone', (pod) => pod === undefined);
  const giveUpMs = Date.now() + patienceMs;
  while ((await readdir(join(kubelet.root, 'pods'))).length > 0) {
    assert.ok(Date.now() < giveUpMs, 'the pod leaves its directory behind');
    await delay(pollMs);
  }
  say('nothing of it is left in the kubelet');
}

/** The image that needs no registry is made when a pod first runs it, and a kubelet wants to see it before. */
async function makeImage(cli: CliNode): Promise<void> {
  const spec = `{ restartPolicy: Never, containers: [{ name: c, image: "${image}", command: ["true"] }] }`;
  const { code, stderr } = await cli.type(
    ['run', '-'],
    `{ apiVersion: v1, kind: Pod, metadata: { name: first }, spec: ${spec} }`,
  );
  assert.equal(code, 0, stderr);
}

async function main(): Promise<void> {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const go = await goVersion(stop.signal);
  if (go === undefined) {
    say('SKIPPED: this machine has no Go toolchain (`go`), with which the kubelet is built');
    return;
  }
  const { values } = parseArgs({ options: { delegate: { type: 'boolean', default: false } } });
  say(`building kubelet ${version} with ${go}, unless it is there`);
  const program = await buildKubelet(cache, stop.signal);
  await using undo = new AsyncDisposableStack();
  const hostDirectory = await mkdtemp('/var/tmp/podvm-kubelet-host-');
  undo.defer(() => rm(hostDirectory, { recursive: true }));
  const cli = undo.use(await openCliNode({ isSetUp: true }));
  await makeImage(cli);
  const settings = join(hostDirectory, 'podvm.yaml');
  const delegate = values.delegate ? undo.use(await startKubeSystem(cache, stop.signal)) : undefined;
  await writeFile(settings, delegate === undefined ? '' : `delegate: ${delegate.settings['PODVM_DELEGATE']}\n`);
  const another = undo.use(await makeAnotherBuild());
  const startDaemon = (program?: string) => cli.start(['daemon', '--config', settings], '', program);
  let daemon = startDaemon();
  undo.defer(async () => {
    await cli.type(['drain', '--grace', '0']);
    daemon.child.kill('SIGTERM');
    await daemon.ended;
  });
  const isServing = () => daemon.shows(/ info serving /, servingMs);
  await isServing();
  const replaceDaemon = async () => {
    daemon.child.kill('SIGKILL');
    await daemon.ended;
    daemon = startDaemon(another.program);
    await isServing();
  };
  const endpoint = join(cli.root, 'cri.sock');
  const kubelet = undo.use(await runKubelet(program, `unix://${endpoint}`));
  try {
    if (values.delegate) await tourDelegate({ kubelet, say, replaceDaemon });
    else await tour({ kubelet, endpoint, hostDirectory, replaceDaemon });
  } catch (error) {
    process.stderr.write(
      (await kubelet.log())
        .split('\n')
        .filter((line) => line.startsWith('E'))
        .slice(-10)
        .join('\n'),
    );
    process.stderr.write(daemon.stderr().split('\n').slice(-20).join('\n'));
    throw error;
  }
  say('passed');
}

try {
  await main();
} catch (error) {
  say(`FAILED: ${messageOf(error)}`);
  process.exitCode = 1;
}

import assert from 'node:assert/strict';
import { readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { release } from 'node:os';
import { makeBaseLayout } from '#image/source/base-image.ts';
import { poll } from '#host/wait.ts';
import { buildCriTools } from '../conformance/cri-tools.ts';
import { type DelegateNode, startDelegate } from '../conformance/delegate.ts';
import { makeWorkDirectory } from '../conformance/work-directory.ts';
import { sysroot } from '../images/image-tree.ts';
import type { Kubelet, KubeletPod } from './run-kubelet.ts';

const image = 'localhost/podvm/base:latest';
const patienceMs = 120_000;

const podOf = (name: string, namespace: string, host: string) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  ${host}
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: ${image}
      imagePullPolicy: Never
      command: [sh, -c, 'echo begun; sleep 100000']
      readinessProbe: { exec: { command: [ls, /sys/class/net] }, periodSeconds: 2, timeoutSeconds: 10 }
`;

/** A containerd that has the base image, and is to run pods of kube-system. `cache`: as in `DelegateOptions`. */
export async function startKubeSystem(cache: string, signal: AbortSignal): Promise<DelegateNode> {
  await using undo = new AsyncDisposableStack();
  const { path } = undo.use(await makeWorkDirectory());
  const { crictl } = await buildCriTools(cache, signal);
  const layouts = [await makeBaseLayout(await sysroot(), path, signal)];
  const work = join(path, 'containerd');
  const delegate = undo.use(await startDelegate({ cache, work, crictl, namespaces: 'kube-system', layouts, signal }));
  const owned = undo.move();
  return { settings: delegate.settings, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

export interface DelegateTour {
  readonly kubelet: Kubelet;
  readonly say: (text: string) => void;
  /** Kills the daemon; the next one serves when it resolves. */
  readonly replaceDaemon: () => Promise<void>;
}

/** Runs a static pod with the network and the processes of the host beside one in a machine. */
export async function tourDelegate({ kubelet, say, replaceDaemon }: DelegateTour): Promise<void> {
  await kubelet.setPod(podOf('proxy', 'kube-system', 'hostNetwork: true\n  hostPID: true'), 'proxy');
  await kubelet.setPod(podOf('machine', 'default', 'hostNetwork: false'), 'machine');
  await become(kubelet, 'both ready', (pods) => pods.length === 2 && pods.every(isReady));
  say('a pod of the host and a pod in a machine are ready');

  const exec = async (pod: string, command: string) =>
    (
      await kubelet.ask(`/run/${pod}-node/main?cmd=${command.split(' ').map(encodeURIComponent).join('+')}`, 'POST')
    ).trim();
  for (const kind of ['net', 'pid']) {
    assert.equal(
      await exec('kube-system/proxy', `readlink /proc/self/ns/${kind}`),
      await readlink(`/proc/self/ns/${kind}`),
    );
  }
  assert.notEqual(await exec('default/machine', 'uname -r'), release());
  for (const pod of ['kube-system/proxy', 'default/machine']) {
    assert.equal(await kubelet.ask(`/containerLogs/${pod}-node/main`), 'begun\n');
  }
  const stats = await kubelet.ask('/stats/summary');
  for (const name of ['proxy-node', 'machine-node']) assert.match(stats, new RegExp(`"name": "${name}"`));
  say('the kubelet has commands, logs and figures of both');

  await replaceDaemon();
  const goesOn = async (pod: string) => {
    const answers = async () => await exec(pod, 'echo on').catch(() => undefined); // the kubelet connects again
    assert.equal(await poll(answers, { everyMs: 500, signal: AbortSignal.timeout(patienceMs) }), 'on');
  };
  for (const pod of ['kube-system/proxy', 'default/machine']) await goesOn(pod);
  await become(kubelet, 'both ready again', (pods) => pods.every((pod) => isReady(pod) && restartsOf(pod) === 0));
  say('both go on under the next daemon');

  for (const name of ['proxy', 'machine']) await kubelet.setPod('', name);
  await become(kubelet, 'gone', (pods) => pods.length === 0);
  say('both are gone');
}

async function become(kubelet: Kubelet, what: string, isSo: (pods: readonly KubeletPod[]) => boolean): Promise<void> {
  let last: readonly KubeletPod[] = [];
  const look = async () => {
    last = await kubelet.pods().catch(() => last); // it may not serve yet
    return isSo(last) ? true : undefined;
  };
  const found = await poll(look, { everyMs: 500, signal: AbortSignal.timeout(patienceMs) });
  assert.equal(found, true, `the pods are not ${what}: ${JSON.stringify(last)}`);
}

const isReady = ({ status }: KubeletPod): boolean =>
  status.conditions.some((condition) => condition.type === 'Ready' && condition.status === 'True');

const restartsOf = ({ status }: KubeletPod): number => status.containerStatuses[0]?.restartCount ?? 0;

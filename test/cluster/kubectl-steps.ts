import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Steps } from '../containerd/walk-steps.ts';
import { until } from './kubectl.ts';
import { images } from './places.ts';
import type { WorkerTour } from './tour.ts';
import { largeBytes, webPods } from './serving-pods.ts';

/** Commands of users at pods in machines of a worker: `volumes`, and the one of `serving-pods.ts`. */
export const kubectlSteps: Steps<WorkerTour> = [
  ['kubectl exec passes input, exit codes and terminals', execs],
  ['kubectl logs -f follows a running container', follows],
  ['kubectl run -it starts a shell and talks to it', runsShell],
  ['kubectl attach talks to a running shell', attaches],
  ['kubectl port-forward leads to the pod, many times', forwards],
  ['kubectl cp copies files and directories both ways', copies],
  ['kubectl debug adds a container to a running pod', debugs],
  ['kubectl debug node/ opens a shell on the node', debugsNode],
  ['the kubelet has figures of pods', figures],
  ['a pod is resized in place', resizes],
];

async function execs({ kubectl, at }: WorkerTour): Promise<void> {
  const input = randomBytes(300_000);
  const sum = createHash('sha256').update(input).digest('hex');
  const { stdout } = await kubectl.try(['exec', '-i', 'volumes', '--', 'sha256sum'], { input });
  assert.equal(stdout.split(' ')[0], sum);
  assert.equal((await kubectl.try(['exec', 'volumes', '--', 'sh', '-c', 'exit 7'])).code, 7);
  // The client reports the size of its terminal once the command runs.
  const script = `tty; until stty size 2>/dev/null | grep "33 77"; do sleep 0.1; done; cat`;
  const command = `stty rows 33 cols 77; kubectl exec -it volumes -- sh -c '${script}'`;
  await using typed = at.node.speak('script', '-qfec', command, '/dev/null');
  await typed.says(/\/dev\/pts\/\d+\r?\n33 77\r?\n/);
  typed.write('typed\n\u0004');
  await typed.says(/typed\r?\ntyped/);
  assert.equal(await typed.ends(), 0);
}

/** The pod of `serving-pods.ts` that is in a machine of the worker. */
function webPodOf({ at }: WorkerTour): string {
  const found = webPods.find(({ node, runtime }) => node === at.node.name && runtime === 'machine');
  assert.ok(found !== undefined);
  return found.name;
}

async function follows(tour: WorkerTour): Promise<void> {
  await using followed = tour.kubectl.speak('logs', '-f', '--tail=2', webPodOf(tour));
  const [, line = ''] = await followed.says(/^line (\d+)\n/);
  const next = Array.from({ length: 10 }, (_, at) => `line ${Number(line) + at}\n`);
  await followed.says(new RegExp(`^${next.join('')}`));
}

const shellFlags = ({ at }: WorkerTour) => {
  const overrides = { spec: { runtimeClassName: 'machine', nodeSelector: { 'kubernetes.io/hostname': at.node.name } } };
  return `shell --image=${images.busybox} --restart=Never --grace-period=1 --overrides='${JSON.stringify(overrides)}'`;
};

async function runsShell(tour: WorkerTour): Promise<void> {
  const command = `kubectl run -it --rm ${shellFlags(tour)} -- sh`;
  await using typed = tour.kubectl.node.speak('script', '-qfec', command, '/dev/null');
  typed.write('echo "sum: $((40 + 2))"; exit 5\n');
  await typed.says(/sum: 42/);
  await typed.says(/pod "shell" deleted/);
  assert.equal(await typed.ends(), 5);
}

async function attaches(tour: WorkerTour): Promise<void> {
  const { kubectl } = tour;
  await kubectl.node.run('sh', ['-c', `kubectl run --stdin --tty --attach=false ${shellFlags(tour)} -- sh`]);
  await kubectl.run('wait', '--for=condition=Ready', 'pod/shell', '--timeout=240s');
  await using typed = kubectl.node.speak('script', '-qfec', 'kubectl attach -it shell', '/dev/null');
  typed.write('echo "sum: $((40 + 2))"; exit 5\n');
  await typed.says(/sum: 42/);
  const code = 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}';
  await until('it has ended', async () => assert.equal(await kubectl.run('get', 'pod', 'shell', '-o', code), '5'));
  await kubectl.run('delete', 'pod', 'shell');
}

async function forwards(tour: WorkerTour): Promise<void> {
  const pod = webPodOf(tour);
  await using forwarding = tour.kubectl.speak('port-forward', pod, '18080:8080');
  await forwarding.says(/Forwarding from 127\.0\.0\.1:18080/);
  const url = 'http://127.0.0.1:18080';
  for (let turn = 0; turn < 5; turn += 1) {
    assert.equal((await tour.kubectl.node.run('curl', ['-sS', url])).stdout, `${pod}\n`);
  }
  const { stdout } = await tour.kubectl.node.run('sh', ['-c', `curl -sS ${url}/large | wc -c`]);
  assert.equal(Number(stdout), largeBytes);
}

async function copies({ kubectl, at, work }: WorkerTour): Promise<void> {
  const bytes = randomBytes(2_000_000);
  await at.node.run('mkdir', ['-p', join(work, 'copied/directory')]);
  await writeFile(join(work, 'copied/directory/file'), bytes);
  await kubectl.run('cp', join(work, 'copied/directory'), 'volumes:/scratch/directory');
  await kubectl.run('cp', 'volumes:/scratch/directory', join(work, 'copied/back'));
  assert.ok((await readFile(join(work, 'copied/back/file'))).equals(bytes));
}

async function debugs({ kubectl }: WorkerTour): Promise<void> {
  await kubectl.run(
    'debug',
    'volumes',
    `--image=${images.busybox}`,
    '-c',
    'debugger',
    '--',
    'sh',
    '-c',
    'echo looked; ip address; sleep 1000',
  );
  await until('it has looked', async () => {
    const said = await kubectl.run('logs', 'volumes', '-c', 'debugger');
    assert.match(said, /^looked$/m);
    const [pod] = await kubectl.pods('app=volumes');
    assert.ok(said.includes(`inet ${pod?.status.podIP}/`), 'it has the network of the pod');
  });
}

async function debugsNode({ kubectl, at }: WorkerTour): Promise<void> {
  const script = 'chroot /host hostname; ls -d /host/var/lib/kubelet; cat /proc/1/comm';
  await kubectl.run(
    'debug',
    `node/${at.node.name}`,
    '-n',
    'kube-system',
    '--profile=sysadmin',
    `--image=${images.busybox}`,
    '--',
    'sh',
    '-c',
    script,
  );
  const said = await until('it has ended', async () => {
    const names = await kubectl.run('get', 'pod', '-n', 'kube-system', '-o', 'name');
    const [debugger_] = names.split('\n').filter((name) => name.startsWith('pod/node-debugger-'));
    assert.ok(debugger_ !== undefined);
    const logs = await kubectl.run('logs', '-n', 'kube-system', debugger_);
    assert.match(logs, /bash/);
    await kubectl.run('delete', '-n', 'kube-system', debugger_, '--grace-period=1');
    return logs;
  });
  assert.equal(said, `${at.node.name}\n/host/var/lib/kubelet\nbash\n`);
}

async function figures({ kubectl, at }: WorkerTour): Promise<void> {
  const summary = `/api/v1/nodes/${at.node.name}/proxy/stats/summary`;
  await until('the summary has the pod', async () => {
    const text = await kubectl.run('get', '--raw', summary);
    const pods = JSON.parse(text).pods as {
      podRef: { name: string };
      memory?: { workingSetBytes?: number };
      cpu?: { usageCoreNanoSeconds?: number };
    }[];
    for (const name of ['volumes']) {
      const found = pods.find(({ podRef }) => podRef.name === name);
      assert.ok((found?.memory?.workingSetBytes ?? 0) > 0, JSON.stringify(found));
      assert.ok((found?.cpu?.usageCoreNanoSeconds ?? 0) > 0, JSON.stringify(found));
    }
  });
}

async function resizes({ kubectl }: WorkerTour): Promise<void> {
  const patch = {
    spec: {
      containers: [
        { name: 'main', resources: { limits: { memory: '160Mi', cpu: 1 }, requests: { memory: '160Mi', cpu: 1 } } },
      ],
    },
  };
  await kubectl.run('patch', 'pod', 'volumes', '--subresource', 'resize', '-p', JSON.stringify(patch));
  const limit = 'jsonpath={.status.containerStatuses[0].resources.limits.memory}';
  await until('it has the new limit', async () => {
    assert.equal(await kubectl.run('get', 'pod', 'volumes', '-o', limit), '160Mi');
    assert.equal(await kubectl.sh('volumes', 'cat /sys/fs/cgroup/memory.max'), String(160 * 1024 * 1024));
  });
  assert.equal(
    await kubectl.run('get', 'pod', 'volumes', '-o', 'jsonpath={.status.containerStatuses[0].restartCount}'),
    '0',
  );
}

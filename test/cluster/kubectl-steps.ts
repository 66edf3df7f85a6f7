import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Steps } from '../containerd/walk-steps.ts';
import { until } from './kubectl.ts';
import { images } from './places.ts';
import type { FirstTour } from './tour.ts';

/** Commands of users at pods in machines of the first node; `volumes` and `web` run there. */
export const kubectlSteps: Steps<FirstTour> = [
  ['kubectl exec passes input, exit codes and terminals', execs],
  ['kubectl cp copies files and directories both ways', copies],
  ['kubectl debug adds a container to a running pod', debugs],
  ['kubectl debug node/ opens a shell on the node', debugsNode],
  ['the kubelet has figures of pods', figures],
  ['a pod is resized in place', resizes],
];

async function execs({ kubectl, first }: FirstTour): Promise<void> {
  const input = randomBytes(300_000);
  const sum = createHash('sha256').update(input).digest('hex');
  const { stdout } = await kubectl.try(['exec', '-i', 'volumes', '--', 'sha256sum'], { input });
  assert.equal(stdout.split(' ')[0], sum);
  assert.equal((await kubectl.try(['exec', 'volumes', '--', 'sh', '-c', 'exit 7'])).code, 7);
  // The client reports the size of its terminal once the command runs.
  const script = `tty; until stty size 2>/dev/null | grep "33 77"; do sleep 0.1; done; cat`;
  const command = `stty rows 33 cols 77; kubectl exec -it volumes -- sh -c '${script}'`;
  await using typed = first.node.speak('script', '-qfec', command, '/dev/null');
  await typed.says(/\/dev\/pts\/\d+\r?\n33 77\r?\n/);
  typed.write('typed\n\u0004');
  await typed.says(/typed\r?\ntyped/);
  assert.equal(await typed.ends(), 0);
}

async function copies({ kubectl, first, work }: FirstTour): Promise<void> {
  const bytes = randomBytes(2_000_000);
  await first.node.run('mkdir', ['-p', join(work, 'copied/directory')]);
  await writeFile(join(work, 'copied/directory/file'), bytes);
  await kubectl.run('cp', join(work, 'copied/directory'), 'volumes:/scratch/directory');
  await kubectl.run('cp', 'volumes:/scratch/directory', join(work, 'copied/back'));
  assert.ok((await readFile(join(work, 'copied/back/file'))).equals(bytes));
}

async function debugs({ kubectl }: FirstTour): Promise<void> {
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

async function debugsNode({ kubectl, first }: FirstTour): Promise<void> {
  const script = 'chroot /host hostname; ls -d /host/var/lib/kubelet; cat /proc/1/comm';
  await kubectl.run(
    'debug',
    `node/${first.node.name}`,
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
  assert.equal(said, `${first.node.name}\n/host/var/lib/kubelet\nbash\n`);
}

async function figures({ kubectl, first }: FirstTour): Promise<void> {
  const summary = `/api/v1/nodes/${first.node.name}/proxy/stats/summary`;
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

async function resizes({ kubectl }: FirstTour): Promise<void> {
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

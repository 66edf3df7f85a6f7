import assert from 'node:assert/strict';
import * as v from 'valibot';
import type { Steps } from '../containerd/walk-steps.ts';
import { manifest } from './cluster.ts';
import { isReady, type Kubectl, until } from './kubectl.ts';
import type { WorkerTour } from './tour.ts';
import { write } from './worker.ts';

/** Pods of users in machines of a worker. */
export const workloadSteps: Steps<WorkerTour> = [
  ['ConfigMaps, Secrets, downward API, tokens, emptyDirs and hostPaths are in the pod', mountsVolumes],
  ['a changed ConfigMap and Secret appear in the running pod', updatesVolumes],
  ['a token of the pod is its service account for the API server', authenticates],
  ['probes hold back traffic, and restart a container', probes],
];

async function mountsVolumes({ kubectl, at }: WorkerTour): Promise<void> {
  await at.node.run('mkdir', ['-p', '/var/lib/podvm-cluster-host']);
  await write(at.node, '/var/lib/podvm-cluster-host/question', 'question');
  const yaml = await manifest('volumes.yaml', { NODE: at.node.name });
  await kubectl.delete(yaml); // that of another worker
  await kubectl.apply(yaml);
  await kubectl.run('wait', '--for=condition=Ready', 'pod/volumes', '--timeout=240s');
  const files = {
    '/config/greeting': 'hello',
    '/secret/password': 'secret',
    '/info/labels': 'app="volumes"',
    '/info/cpu': '1',
    '/all/greeting': 'hello',
    '/all/password': 'secret',
    '/host/question': 'question',
    '/single': 'hello',
  };
  for (const [path, content] of Object.entries(files))
    assert.equal(await kubectl.sh('volumes', `cat ${path}`), content);
  assert.equal(await kubectl.sh('volumes', 'echo $GREETING $PASSWORD $POD_IP $NODE'), await environmentOf(kubectl));
  assert.match(await kubectl.sh('volumes', 'df -h /memory | tail -1'), /tmpfs +16\.0M/);
  assert.equal(await kubectl.sh('volumes', 'cat /scratch/prepared'), 'by the init container');
  await kubectl.sh('volumes', 'echo answer >/host/answer');
  assert.equal((await at.node.run('cat', ['/var/lib/podvm-cluster-host/answer'])).stdout, 'answer\n');
}

async function environmentOf(kubectl: Kubectl): Promise<string> {
  const [pod] = await kubectl.pods('app=volumes');
  return `hello secret ${pod?.status.podIP} ${pod?.spec.nodeName}`;
}

async function updatesVolumes({ kubectl }: WorkerTour): Promise<void> {
  const changed = { configmap: '{"data":{"greeting":"changed"}}', secret: '{"stringData":{"password":"other"}}' };
  for (const [kind, patch] of Object.entries(changed)) await kubectl.run('patch', kind, 'settings', '-p', patch);
  await until('the files change', async () => {
    const script = 'cat /config/greeting /secret/password /all/greeting /all/password';
    assert.equal(await kubectl.sh('volumes', script), 'changedotherchangedother');
  });
  assert.equal(await kubectl.sh('volumes', 'cat /single'), 'hello', 'a sub-path stays');
}

async function authenticates({ kubectl }: WorkerTour): Promise<void> {
  const token = await kubectl.sh('volumes', 'cat /var/run/secrets/kubernetes.io/serviceaccount/token');
  const spec = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } };
  const { stdout } = await kubectl.try(['create', '-o', 'json', '-f', '-'], {
    input: JSON.stringify(spec),
    okCodes: [0],
  });
  const answer = v.object({
    status: v.object({ authenticated: v.boolean(), user: v.object({ username: v.string() }) }),
  });
  const { status } = v.parse(answer, JSON.parse(stdout));
  assert.deepEqual(status.user.username, 'system:serviceaccount:default:default');
  assert.ok(status.authenticated);
}

async function probes({ kubectl, at }: WorkerTour): Promise<void> {
  const yaml = await manifest('probed.yaml', { NODE: at.node.name });
  await kubectl.apply(yaml);
  await kubectl.run('wait', '--for=condition=Ready', 'pod/probed', '--timeout=240s');
  const endpoints = async () =>
    await kubectl.run(
      'get',
      'endpointslice',
      '-l',
      'kubernetes.io/service-name=probed',
      '-o',
      'jsonpath={.items[*].endpoints[*].conditions.ready}',
    );
  await until('traffic is admitted', async () => assert.equal(await endpoints(), 'true'));
  await kubectl.sh('probed', 'rm /tmp/ready');
  await until('traffic is held back', async () => assert.equal(await endpoints(), 'false'));
  // A kubelet may remove the old container while the next one starts slowly, and with it its log.
  await using log = kubectl.speak('logs', '-f', 'probed');
  await kubectl.sh('probed', 'rm /tmp/alive');
  await until('the container is restarted', async () => {
    const [pod] = await kubectl.pods('app=probed');
    assert.ok(pod !== undefined && pod.status.containerStatuses[0]?.restartCount === 1 && isReady(pod));
  });
  await log.says(/^stopping$/m);
  assert.match(
    await kubectl.run('get', 'event', '--field-selector', 'involvedObject.name=probed'),
    /Liveness probe failed/,
  );
  await kubectl.delete(yaml);
}

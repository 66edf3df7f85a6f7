import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { type Browser, openBrowser } from '../dashboard/browser.ts';
import { startSilentServer } from '../images/bad-registries.ts';
import { type CliNode, openCliNode, repo, type Typed } from '../vm/cli-node.ts';
import { whyNoVm } from '../vm/node.ts';
import { openPrometheus } from '../vm/prometheus.ts';

/**
 * Incidents at 3 a.m.: an operator who knows only docs/monitoring.md finds the cause of each, by the alert, the dashboard
 * and `podvm doctor POD`, or `podvm describe POD` for a start, and has a support bundle that tells of it.
 */
const skip = await whyNoVm();

interface PodOf {
  readonly name: string;
  readonly script: string;
  readonly image?: string;
  readonly limits?: string;
  readonly hostPath?: string;
}

const podOf = ({ name, script, image = 'localhost/podvm/base:latest', limits = 'memory: 64Mi', hostPath }: PodOf) =>
  `apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  terminationGracePeriodSeconds: 1
  volumes: [${hostPath === undefined ? '' : `{ name: data, hostPath: { path: ${hostPath} } }`}]
  containers:
    - name: main
      image: ${image}
      command: [sh, -c, '${script}']
      resources: { limits: { ${limits} } }
      volumeMounts: [${hostPath === undefined ? '' : '{ name: data, mountPath: /data }'}]
---
`;

/** The rules of `deploy/`, with seconds for minutes, so that they fire as fast as the incident grows. */
async function quickRules(directory: string): Promise<string> {
  const text = await readFile(join(repo, 'deploy/prometheus-rules.yaml'), 'utf8');
  const path = join(directory, 'quick-rules.yaml');
  const pullLimit = 'podvm_image_oldest_pull_seconds > 300';
  assert.ok(text.includes(pullLimit));
  await writeFile(
    path,
    text
      .replaceAll(/for: (\d+)m$/gm, 'for: $1s')
      .replaceAll(/\[\d+m\]/g, '[30s]')
      .replaceAll(pullLimit, pullLimit.replace('300', '5')),
  );
  return path;
}

describe('an operator finds the cause of an incident', { skip, timeout: 880_000 }, () => {
  let node: CliNode;
  let daemon: Typed;
  let prometheus: Awaited<ReturnType<typeof openPrometheus>>;
  let browser: Browser;
  let origin: string;
  before(async () => {
    node = await openCliNode({ isSetUp: true });
    const config = join(node.root, 'podvm.yaml');
    await writeFile(config, 'metricsAddress: 127.0.0.1:0\n');
    daemon = node.start(['daemon', '--config', config]);
    await daemon.shows(/ info serving cri=/, 300_000);
    const [, port] = /serving metrics address=127.0.0.1 port=(\d+)/.exec(daemon.stderr()) ?? [];
    const prometheusRoot = join(node.root, 'prometheus');
    prometheus = await openPrometheus(prometheusRoot, `127.0.0.1:${port}`, await quickRules(node.root));
    const dashboard = node.start(['dashboard']);
    await dashboard.shows(/#token=\w+\n/, 120_000);
    browser = await openBrowser();
    await browser.page.goto(dashboard.stdout().trim());
    await browser.page.getByRole('heading', { name: 'Machines' }).waitFor();
    origin = new URL(browser.page.url()).origin;
  });
  after(async () => {
    await browser?.[Symbol.asyncDispose]();
    await prometheus?.[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });

  const startPod = async (name: string, yaml: string): Promise<Typed> => {
    const path = join(node.root, `${name}.yaml`);
    await writeFile(path, yaml);
    return node.start(['run', path]);
  };
  const alert = async (name: string) =>
    await prometheus.found(`ALERTS{alertname="${name}", alertstate="firing"}`, 240_000);
  const stop = async (typed: Typed) => {
    typed.child.kill('SIGINT');
    await typed.ended;
  };
  const doctor = async (pod: string) => (await node.type(['doctor', pod])).stdout;

  it('memory runs full: the alert names the container, the dashboard shows its memory, doctor its limit', async () => {
    const script = 'echo begins; head -c 62000000 /dev/zero >/dev/shm/leak; sleep 1000000';
    const pod = await startPod('leaky', podOf({ name: 'leaky', script }));
    await pod.shows(/begins/, 120_000);
    const [raised] = await alert('PodvmContainerNearMemoryLimit');
    assert.deepEqual([raised?.metric['pod'], raised?.metric['container']], ['leaky', 'main']);

    const { page } = browser;
    await page.goto(`${origin}/pods/default/leaky`);
    const memory = page
      .locator('section.card')
      .filter({ has: page.getByRole('heading', { name: 'Memory', exact: true }) });
    await memory
      .getByText(/[56]\d\.\d MiB/)
      .first()
      .waitFor();

    assert.match(await doctor('leaky'), /^warn +memory +(?:5[89]|6\d)\.\d MiB of 64\.0 MiB/m);
    await stop(pod);
  });

  it('a disk runs full: the alert names the container, and doctor what has no room', async () => {
    const script = 'echo begins; dd if=/dev/zero of=/full bs=1M count=100; sleep 1000000';
    const limits = 'memory: 64Mi, ephemeral-storage: 32Mi';
    const pod = await startPod('writer', podOf({ name: 'writer', script, limits }));
    await pod.shows(/No space left on device/, 120_000);
    const [raised] = await alert('PodvmContainerNearDiskLimit');
    assert.deepEqual([raised?.metric['pod'], raised?.metric['container']], ['writer', 'main']);
    assert.match(
      await doctor('writer'),
      /^(?:warn|fail) +disk of main +[\d.]+ of [\d.]+ MiB written outside of volumes$/m,
    );
    await stop(pod);
  });

  it('a file system of the node hangs: the alert names the pod, doctor the volume, and the bundle has both', async () => {
    await using hanging = await openFileSystem(join(node.root, 'hanging'));
    const script = 'echo begins; while :; do echo x >/data/x; sync; sleep 1; done';
    const pod = await startPod('stuck', podOf({ name: 'stuck', script, hostPath: hanging.path }));
    await pod.shows(/begins/, 120_000);
    await run('fsfreeze', ['--freeze', hanging.path]);
    const [raised] = await alert('PodvmVolumeHangs');
    assert.equal(raised?.metric['pod'], 'stuck');
    const cause = new RegExp(
      `fail +mounts of main +/data waits: a request to ${hanging.path} has not been answered for \\d+ s`,
    );
    assert.match(await doctor('stuck'), cause);

    const bundle = join(node.root, 'bundle.tar.gz');
    assert.equal((await node.type(['support-bundle', '-o', bundle])).code, 0);
    const fileOf = async (name: string) =>
      (await run('tar', ['--extract', '--to-stdout', `--file=${bundle}`, `podvm-support/${name}`])).stdout;
    assert.match(await fileOf('pods/default_stuck/doctor.json'), /has not been answered for \d+ s/);
    assert.match(
      await fileOf('node/metrics.txt'),
      /^podvm_pod_file_server_oldest_request_seconds\{[^}]*pod="stuck"[^}]*\} \d\d/m,
    );
    await run('fsfreeze', ['--unfreeze', hanging.path]);
    await stop(pod);
  });

  it('a pod starts slowly: the alert says that a pull hangs, and describe of which image', async () => {
    await using registry = await startSilentServer();
    const image = `${registry.name}/shop/web:1`;
    const pod = await startPod('slow', podOf({ name: 'slow', script: 'true', image }));
    await alert('PodvmImagePullHangs');
    const { stdout } = await node.type(['describe', 'slow']);
    assert.match(stdout, new RegExp(`^ +main +waiting, ContainerCreating .*${image}$`, 'm'));
    assert.match(stdout, /^ +total +[\d.]+ m?s/m, 'its machine has started');
    await stop(pod);
  });
});

/** A small ext4 of its own, which `fsfreeze` can make hang. */
async function openFileSystem(path: string): Promise<AsyncDisposable & { readonly path: string }> {
  await run('truncate', ['--size=32M', `${path}.img`]);
  await run('mkfs.ext4', ['-q', `${path}.img`]);
  await mkdir(path);
  await run('mount', ['-o', 'loop', `${path}.img`, path]);
  return {
    path,
    async [Symbol.asyncDispose]() {
      await run('fsfreeze', ['--unfreeze', path], { okCodes: 'any' });
      await run('umount', [path]);
    },
  };
}

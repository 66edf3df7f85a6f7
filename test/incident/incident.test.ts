import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { type Browser, openBrowser } from '../dashboard/browser.ts';
import { startSilentServer } from '../images/bad-registries.ts';
import { type CliNode, openCliNode, repo, type Typed } from '../vm/cli-node.ts';
import { whyNoVm } from '../vm/node.ts';
import { openPrometheus } from '../vm/prometheus.ts';

/**
 * Incidents at 3 a.m.: an operator who knows only docs/monitoring.md finds the cause of each by the alert, by the page of
 * the pod in the dashboard, and by `podvm describe POD`, and has a support bundle that tells of it.
 */
const skip = await whyNoVm();
/** Pictures of what the dashboard showed. */
const pictures = join(tmpdir(), 'podvm-incident');

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
    await writeFile(config, 'metricsAddress: 127.0.0.1:0\ndashboardAddress: 127.0.0.1:0\n');
    daemon = node.start(['daemon', '--config', config]);
    await daemon.shows(/ info serving cri=/, 300_000);
    const [, port] = /serving metrics address=127.0.0.1 port=(\d+)/.exec(daemon.stderr()) ?? [];
    const prometheusRoot = join(node.root, 'prometheus');
    prometheus = await openPrometheus(prometheusRoot, `127.0.0.1:${port}`, await quickRules(node.root));
    browser = await openBrowser();
    await browser.page.goto((await readFile(join(node.root, 'dashboard.url'), 'utf8')).trim());
    await browser.page.getByRole('heading', { name: 'Machines' }).waitFor();
    origin = new URL(browser.page.url()).origin;
    await mkdir(pictures, { recursive: true });
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
  /** Types `podvm describe` until it has the words. */
  const described = async (pod: string, words: RegExp): Promise<void> => {
    const deadline = AbortSignal.timeout(120_000);
    for (;;) {
      const { stdout, stderr } = await node.type(['describe', pod]);
      if (words.test(stdout)) return;
      if (deadline.aborted) assert.match(stdout + stderr, words);
    }
  };
  /** Waits until the page of a pod has the words in sight, without scrolling, and takes its picture. */
  const shows = async (pod: string, words: RegExp, { examines = true } = {}): Promise<void> => {
    const { page } = browser;
    await page.goto(`${origin}/pods/default/${pod}`);
    const told = page.getByText(words).first();
    const again = page.getByRole('button', { name: 'Examine again' });
    const deadline = AbortSignal.timeout(120_000);
    if (examines) await again.waitFor();
    while (!(await told.isVisible().catch(() => false)) && !deadline.aborted) {
      if (examines) await again.click();
      await told.waitFor({ timeout: 10_000 }).catch(() => undefined);
    }
    await told.waitFor({ timeout: 1000 });
    const { y = Infinity, height = 0 } = (await told.boundingBox()) ?? {};
    assert.ok(y >= 0 && y + height <= 800, `${words} is at ${y} of the page`);
    await page.screenshot({ path: join(pictures, `${pod}.png`) });
  };

  it('a pod leaks memory: alert, describe, dashboard and doctor name the container or its limit', async () => {
    const script = 'echo begins; head -c 62000000 /dev/zero >/dev/shm/leak; sleep 1000000';
    const pod = await startPod('leaky', podOf({ name: 'leaky', script }));
    await pod.shows(/begins/, 120_000);
    const [raised] = await alert('PodvmContainerNearMemoryLimit');
    assert.deepEqual([raised?.metric['pod'], raised?.metric['container']], ['leaky', 'main']);
    await described('leaky', /^ +memory: (?:5[89]|6\d)\.\d MiB of 64\.0 MiB/m);
    await shows('leaky', /^(?:5[89]|6\d)\.\d MiB of 64\.0 MiB/);
    assert.match(await doctor('leaky'), /^warn +memory +(?:5[89]|6\d)\.\d MiB of 64\.0 MiB/m);
    await stop(pod);
  });

  it('a pod burns processor: each names the limit that holds it back', async () => {
    const limits = 'memory: 64Mi, cpu: 200m';
    const pod = await startPod('burner', podOf({ name: 'burner', script: 'echo begins; while :; do :; done', limits }));
    await pod.shows(/begins/, 120_000);
    const [raised] = await alert('PodvmContainerThrottled');
    assert.deepEqual([raised?.metric['pod'], raised?.metric['container']], ['burner', 'main']);
    await described('burner', /^ +processor: throttled in \d\d+ % of its time[^]*^ +main .* 0\.2 cores /m);
    await shows('burner', /^throttled in \d\d+ % of its time/);
    await stop(pod);
  });

  it('a volume is slow: each names the pod, and its path on the node', async () => {
    await using slow = await openFileSystem(join(node.root, 'slow'));
    const script = 'echo begins; while :; do echo x >/data/x; sync; sleep 0.2; done';
    const pod = await startPod('waiter', podOf({ name: 'waiter', script, hostPath: slow.path }));
    await pod.shows(/begins/, 120_000);
    {
      await using _ = slow.slowDown();
      const [raised] = await alert('PodvmVolumeSlow');
      assert.equal(raised?.metric['pod'], 'waiter');
      const cause = `/data is slow: a request to ${slow.path} takes \\d+\\.\\d\\d s on average`;
      await described('waiter', new RegExp(`^ +mounts of main: ${cause}$`, 'm'));
      await shows('waiter', new RegExp(`^${cause}`));
    }
    await stop(pod);
  });

  it('a file system of the node hangs: each names the pod or the volume, and the bundle has both', async () => {
    await using hanging = await openFileSystem(join(node.root, 'hanging'));
    const script = 'echo begins; while :; do echo x >/data/x; sync; sleep 1; done';
    const pod = await startPod('stuck', podOf({ name: 'stuck', script, hostPath: hanging.path }));
    await pod.shows(/begins/, 120_000);
    await run('fsfreeze', ['--freeze', hanging.path]);
    const [raised] = await alert('PodvmVolumeHangs');
    assert.equal(raised?.metric['pod'], 'stuck');
    const cause = `/data waits: a request to ${hanging.path} has not been answered for \\d+ s`;
    assert.match(await doctor('stuck'), new RegExp(`fail +mounts of main +${cause}`));
    await described('stuck', new RegExp(`^ +! mounts of main: ${cause}$`, 'm'));
    await shows('stuck', new RegExp(`^${cause}`));

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

  it('the pull of an image hangs: each says so, and of which image', async () => {
    await using registry = await startSilentServer();
    const image = `${registry.name}/shop/web:1`;
    const pod = await startPod('slow', podOf({ name: 'slow', script: 'true', image }));
    await alert('PodvmImagePullHangs');
    const cause = `main waits for the pull of ${image}, which has taken \\d\\d+ s`;
    await described('slow', new RegExp(`^ +image of main: ${cause}$`, 'm'));
    await described('slow', /^ +total +[\d.]+ m?s/m); // its machine has started
    await shows('slow', new RegExp(`^${cause}`));
    await stop(pod);
  });

  it('a guest panics: each says so, with its last lines', async () => {
    const script = 'sleep 3; echo c > /proc/sysrq-trigger; sleep 1000000';
    const yaml = podOf({ name: 'panicking', script }).replace(
      '      resources',
      '      securityContext: { privileged: true }\n      resources',
    );
    await prometheus.found('podvm_machine_failures_total'); // an increase needs a figure from before
    const pod = await startPod('panicking', yaml);
    await alert('PodvmMachineFailed');
    await pod.ended;
    const words = /the guest's last lines: .*(?:Kernel panic|sysrq triggered crash)/i;
    await described('panicking', words);
    await shows('panicking', words, { examines: false });
  });

  it('a disk runs full: the alert names the container, and describe and dashboard what has no room', async () => {
    const script = 'echo begins; dd if=/dev/zero of=/full bs=1M count=100; sleep 1000000';
    const limits = 'memory: 64Mi, ephemeral-storage: 32Mi';
    const pod = await startPod('writer', podOf({ name: 'writer', script, limits }));
    await pod.shows(/No space left on device/, 120_000);
    const [raised] = await alert('PodvmContainerNearDiskLimit');
    assert.deepEqual([raised?.metric['pod'], raised?.metric['container']], ['writer', 'main']);
    await described('writer', /^ +!? *disk of main: [\d.]+ of [\d.]+ MiB written outside of volumes$/m);
    await shows('writer', /^[\d.]+ of [\d.]+ MiB written outside of volumes/);
    await stop(pod);
  });
});

interface FrozenFileSystem extends AsyncDisposable {
  readonly path: string;
  /** Makes changes of files wait most of the time, until disposed. */
  slowDown(): AsyncDisposable;
}

/** A small ext4 of its own, which `fsfreeze` can make hang. */
async function openFileSystem(path: string): Promise<FrozenFileSystem> {
  await run('truncate', ['--size=32M', `${path}.img`]);
  await run('mkfs.ext4', ['-q', `${path}.img`]);
  await mkdir(path);
  await run('mount', ['-o', 'loop', `${path}.img`, path]);
  return {
    path,
    slowDown() {
      const freeze = 'while :; do fsfreeze --freeze "$1"; sleep 2; fsfreeze --unfreeze "$1"; sleep 0.05; done';
      const child = spawn('sh', ['-c', freeze, 'sh', path], { stdio: 'ignore', detached: true });
      const ended = once(child, 'close');
      return {
        async [Symbol.asyncDispose]() {
          if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
          await ended;
          await run('fsfreeze', ['--unfreeze', path], { okCodes: 'any' });
        },
      };
    },
    async [Symbol.asyncDispose]() {
      await run('fsfreeze', ['--unfreeze', path], { okCodes: 'any' });
      await run('umount', [path]);
    },
  };
}

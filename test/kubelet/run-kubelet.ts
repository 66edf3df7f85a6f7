import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { callersEnv } from '../conformance/callers-env.ts';
import { freePort } from '../images/registry.ts';

const endTimeoutMs = 30_000;

const podSchema = v.object({
  metadata: v.object({ name: v.string(), uid: v.string() }),
  status: v.object({
    phase: v.string(),
    conditions: v.optional(v.array(v.object({ type: v.string(), status: v.string() })), []),
    containerStatuses: v.optional(
      v.array(v.object({ name: v.string(), ready: v.boolean(), restartCount: v.number() })),
      [],
    ),
  }),
});
export type KubeletPod = v.InferOutput<typeof podSchema>;
const listSchema = v.object({ items: v.nullable(v.array(podSchema)) });

/** A kubelet without an API server: it runs the pods whose files are in a directory. */
export interface Kubelet extends AsyncDisposable {
  /** Its root: pods' directories are in `pods`. */
  readonly root: string;
  /** Writes the file of a pod, of which there may be more than one, by name; an empty text removes it. */
  setPod(yaml: string, name?: string): Promise<void>;
  pods(): Promise<readonly KubeletPod[]>;
  /** A GET, or a POST, of its authenticated port. Errors: an answer with another status than 2xx. */
  ask(path: string, method?: 'GET' | 'POST'): Promise<string>;
  log(): Promise<string>;
}

export async function runKubelet(kubelet: string, endpoint: string): Promise<Kubelet> {
  await using undo = new AsyncDisposableStack();
  const work = await mkdtemp('/var/tmp/podvm-kubelet-');
  undo.defer(() => rm(work, { recursive: true, force: true }));
  const root = join(work, 'root');
  const manifests = join(work, 'manifests');
  for (const directory of [root, manifests]) await mkdir(directory);
  undo.defer(() => unmountBelow(work));
  const port = await freePort();
  const config = join(work, 'config.json');
  await writeFile(
    config,
    JSON.stringify({
      ...settings,
      ...(await placesOf(work)),
      port,
      containerRuntimeEndpoint: endpoint,
      staticPodPath: manifests,
    }),
  );
  const logFile = join(work, 'kubelet.log');
  const output = await open(logFile, 'w');
  const argv = [
    '--config',
    config,
    '--root-dir',
    root,
    '--cert-dir',
    join(work, 'certs'),
    '--hostname-override',
    'node',
  ];
  const child = spawn(kubelet, [...argv, '--v=2'], { stdio: ['ignore', output.fd, output.fd], env: callersEnv() });
  const ended = once(child, 'exit');
  await output.close();
  undo.defer(async () => {
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), endTimeoutMs);
    await ended;
    clearTimeout(late);
  });
  const ask = (path: string, method: 'GET' | 'POST' = 'GET') => askOverHttps(port, path, method);
  const owned = undo.move();
  return {
    root,
    async setPod(yaml, name = 'pod') {
      const file = join(manifests, `${name}.yaml`);
      if (yaml === '') await rm(file, { force: true });
      else await writeFile(file, yaml);
    },
    pods: async () => v.parse(listSchema, JSON.parse(await ask('/pods'))).items ?? [],
    ask,
    log: async () => await readFile(logFile, 'utf8'),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Settings for a test on any host: no cgroups of its own, no eviction for a full disk, short check intervals. */
const settings = {
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  address: '127.0.0.1',
  healthzPort: 0,
  authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
  authorization: { mode: 'AlwaysAllow' },
  failCgroupV1: false,
  failSwapOn: false,
  cgroupDriver: 'cgroupfs',
  cgroupsPerQOS: false,
  enforceNodeAllocatable: [],
  enableControllerAttachDetach: false,
  makeIPTablesUtilChains: false,
  imageGCHighThresholdPercent: 100,
  evictionHard: {
    'memory.available': '1Mi',
    'nodefs.available': '0%',
    'imagefs.available': '0%',
    'nodefs.inodesFree': '0%',
  },
  fileCheckFrequency: '1s',
  syncFrequency: '2s',
};

async function placesOf(work: string) {
  return { podLogsDir: join(work, 'logs') };
}

/** A kubelet mounts its root onto itself, and leaves that. */
async function unmountBelow(directory: string): Promise<void> {
  const points = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').map((line) => line.split(' ')[4] ?? '');
  for (const point of points.filter((each) => each.startsWith(`${directory}/`)).toReversed())
    await run('umount', [point]);
}

/** Accepts its self-signed certificate: on loopback, only the started kubelet answers. */
function askOverHttps(port: number, path: string, method: 'GET' | 'POST'): Promise<string> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(endTimeoutMs);
    const asking = request({ host: '127.0.0.1', port, path, method, rejectUnauthorized: false, signal }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
      });
    });
    asking.on('error', reject);
    asking.end();
  });
}

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import * as v from 'valibot';
import { diagnosisSchema } from '#api/finding.ts';
import { containerdFindings } from '#daemon/doctor/doctor-runtimes.ts';
import { poll } from '#host/wait.ts';
import type { Crictl } from '../conformance/crictl.ts';
import type { CliNode } from '../vm/cli-node.ts';
import type { ContainerdNode } from './containerd-node.ts';
import { endSteps } from './end-steps.ts';
import { imageSteps } from './image-steps.ts';
import { installSteps } from './install-steps.ts';
import { machineSteps } from './machine-steps.ts';
import { Pod } from './pod.ts';
import { processSteps } from './process-steps.ts';
import { newerSteps, specialSteps } from './special-steps.ts';
import { streamSteps } from './stream-steps.ts';
import { type Steps, walkSteps } from './walk-steps.ts';

export interface TourOptions {
  readonly crictl: Crictl;
  readonly containerd: ContainerdNode;
  /** Whether containerd is of version 2 or newer. */
  readonly isNewer: boolean;
  /** Whether podvm was installed as in k3s. */
  readonly isK3s: boolean;
  /** Shim socket and version of podvm in containerd's configuration. */
  readonly podvm: { readonly shimSocketPath: string; readonly version: string };
  readonly work: string;
  /** State directory of podvm. */
  readonly root: string;
  readonly say: (text: string) => void;
  /** Whether steps that are too long for CI are walked, too. */
  readonly isWhole: boolean;
  /** Only steps whose titles match are walked. */
  readonly focus: RegExp | undefined;
  /** Types `podvm ...` on the node. */
  readonly type: CliNode['type'];
  /** Gets a page from where crictl runs. */
  readonly fetch: (url: string) => Promise<string>;
  /** Ends the daemon of podvm and starts the next one, which serves when it resolves. `meanwhile`: while there is none. */
  readonly replaceDaemon: (how: 'SIGKILL' | 'SIGTERM', meanwhile?: () => Promise<void>) => Promise<void>;
}

/** Pods that all steps use: one of each runtime, with a container that waits. */
export interface Tour extends TourOptions {
  readonly runc: Pod;
  readonly pod: Pod;
  /** In the pod of runc. */
  readonly beside: string;
  /** In the pod of podvm. */
  readonly main: string;
}

const steps: Steps<Tour> = [
  ['a pod of podvm runs beside a pod of runc, with a kernel, a name and a resolver of its own', differs],
  ['both pods reach each other through the network of containerd', reaches],
  ...imageSteps,
  ['logs have what containers said, in full and in order', logs],
  ...streamSteps,
  ['containers have figures, and limits that change', measures],
  ['podvm looks into a pod of containerd: doctor and describe find what is wrong, and nothing else', isExamined],
  ['exit codes, lack of memory and last words are told', ends],
  ['containers share the processes of the pod, or do not, as they ask', sharesPids],
  ['users, capabilities, seccomp and read-only root file systems hold', isConfined],
  ['volumes of the kubelet and of the host appear, and change', volumes],
  ['a pod that is to share the network of the host is refused by podvm, and runs with runc', refuses],
  ...machineSteps,
  ...endSteps,
  ['the pods live on when containerd is killed, and an end meanwhile is not lost', outlives],
  ...processSteps,
  [
    'the pods live on when the daemon of podvm is killed or ends, with whole logs, and an end meanwhile is told',
    outlivesDaemon,
  ],
  ['the pods live on when both daemons are killed', outlivesBoth],
  ['doctor finds podvm among the runtimes of containerd, or of k3s', isFoundByDoctor],
];

async function isFoundByDoctor({ containerd, podvm, isK3s }: Tour): Promise<void> {
  const found = await containerdFindings(podvm, containerd.places, AbortSignal.timeout(30_000));
  const name = isK3s ? 'k3s' : 'containerd';
  assert.deepEqual(found, [{ name, status: 'ok', detail: 'podvm is one of its runtimes' }]);
}

async function isExamined({ type, pod, crictl }: Tour): Promise<void> {
  const directory = await mkdtemp('/var/tmp/podvm-examined-');
  const mounts = [{ host_path: directory, container_path: '/shared' }];
  const limits = { linux: { resources: { memory_limit_in_bytes: 64 * 1024 * 1024 } } };
  const id = await pod.start('full', 'head -c 62000000 /dev/zero >/dev/shm/full; sleep 10000', { mounts, ...limits });
  const told = await poll(
    async () => {
      const { stdout } = await type(['doctor', 'default/machine', '-o', 'json']);
      const { findings } = v.parse(diagnosisSchema, JSON.parse(stdout));
      const lines = findings.map(({ name, status, detail }) => `${status} ${name}: ${detail}`);
      return lines.includes('ok mounts of full: 1 as asked') ? lines : undefined;
    },
    { everyMs: 500, signal: AbortSignal.timeout(60_000) },
  );
  assert.ok(told !== undefined, 'doctor finds the container');
  for (const wanted of [
    /^ok machine: ready/,
    /^ok agent: answers in /,
    /^ok address: /,
    /^ok gateway: /,
    /^ok clock: /,
  ])
    assert.ok(
      told.some((line) => wanted.test(line)),
      `${wanted} in ${told.join('\n')}`,
    );
  const failed = told.filter((line) => line.startsWith('fail '));
  assert.ok(
    failed.every((line) => line.startsWith('fail dns: 10.0.0.10')),
    failed.join('\n'),
  ); // no such server
  const described = await type(['describe', 'default/machine']);
  assert.match(described.stdout, /^Made by: +containerd$/m);
  assert.match(described.stdout, /^Troubles:\n(?: .*\n)*? +!? ?dns: 10\.0\.0\.10/m);
  assert.match(described.stdout, /^ +full +running.*\n(?:.*\n)*? +full +[\d.]+ MiB +none +64\.0 MiB/m);
  await crictl.run('rm', '-f', id);
  await rm(directory, { recursive: true });
}

/** Uses a containerd with both runtimes as a kubelet and its user would. Errors: all steps that failed. */
export async function tour(options: TourOptions): Promise<void> {
  const before = await netnsOfContainerd();
  try {
    await walkAll(options);
  } finally {
    await removePods(options.crictl);
  }
  assert.deepEqual(await netnsOfContainerd(), before, 'no network namespace of a pod is left');
}

async function walkAll(options: TourOptions): Promise<void> {
  const { crictl, work, say } = options;
  const runc = await Pod.run(crictl, work, 'runc', 'runc');
  const pod = await Pod.run(crictl, work, 'machine', 'podvm');
  const beside = await runc.start('main', 'sleep 10000');
  const main = await pod.start('main', 'echo begun; sleep 10000');
  const all = [
    ...(options.isNewer ? newerSteps : []),
    ...(options.isWhole ? specialSteps : []),
    ...steps,
    ...(options.isK3s ? [] : installSteps), // the test makes k3s' configuration itself
  ];
  const focused = all.filter(([what]) => options.focus?.test(what) ?? true);
  await walkSteps(focused, { ...options, runc, pod, beside, main }, say);
}

/** Processes of runc would outlive their containerd. */
export async function removePods(crictl: Crictl): Promise<void> {
  for (const pod of (await crictl.run('pods', '-q')).split('\n').filter(Boolean)) await crictl.run('rmp', '-f', pod);
}

const netnsOfContainerd = async () => (await readdir('/run/netns')).filter((name) => name.startsWith('cni-')).sort();

/** Output of a command; crictl ends it with empty lines of its own. */
export async function execSync(crictl: Crictl, id: string, ...command: readonly string[]): Promise<string> {
  return (await crictl.run('exec', '-s', id, ...command)).trimEnd();
}

async function differs({ crictl, main, beside }: Tour): Promise<void> {
  const kernels = await Promise.all([main, beside].map((id) => execSync(crictl, id, 'uname', '-r')));
  assert.notEqual(kernels[0], kernels[1]);
  assert.equal(await execSync(crictl, main, 'hostname'), 'machine');
  const resolver = 'nameserver 10.0.0.10\nsearch default.svc.cluster.local\noptions ndots:5';
  assert.equal(await execSync(crictl, main, 'cat', '/etc/resolv.conf'), resolver);
}

async function reaches({ crictl, runc, pod, main, beside }: Tour): Promise<void> {
  for (const [server, client, id] of [
    [pod, beside, main],
    [runc, main, beside],
  ] as const) {
    const serve = 'mkdir -p /www; echo page >/www/index.html; httpd -p 8080 -h /www';
    await execSync(crictl, id, 'sh', '-c', serve);
    const page = await execSync(crictl, client, 'wget', '-qO-', `http://${await server.address()}:8080/`);
    assert.equal(page, 'page');
  }
}

async function logs({ crictl, pod }: Tour): Promise<void> {
  const id = await pod.start('logs', 'i=0; while [ $i -lt 5000 ]; do echo "line $i"; i=$((i+1)); done; echo last >&2');
  await pod.ended(id);
  const said = await poll(
    async () => {
      const { stdout, stderr } = await crictl.try(['logs', id]);
      return stderr.includes('last') ? stdout : undefined;
    },
    { everyMs: 200, signal: AbortSignal.timeout(20_000) },
  );
  assert.equal(said, Array.from({ length: 5000 }, (_, at) => `line ${at}\n`).join(''));
  await crictl.run('rm', id);
}

const amount = v.object({ value: v.pipe(v.string(), v.regex(/^[1-9]\d*$/)) });
const figures = v.object({
  stats: v.array(
    v.object({ cpu: v.object({ usageCoreNanoSeconds: amount }), memory: v.object({ workingSetBytes: amount }) }),
  ),
});

async function measures({ crictl, main }: Tour): Promise<void> {
  const { stats } = await crictl.json(figures, 'stats', '--id', main);
  assert.equal(stats.length, 1);
  await crictl.run('update', '--memory', String(64 * 1024 * 1024), main);
  const limit = await execSync(crictl, main, 'cat', '/sys/fs/cgroup/memory.max');
  assert.equal(limit, String(64 * 1024 * 1024));
}

async function ends({ crictl, pod, work }: Tour): Promise<void> {
  const message = join(work, 'termination-log');
  await writeFile(message, '');
  const exits = await pod.start('exits', 'echo "last words" >/dev/termination-log; exit 42', {
    annotations: { 'io.kubernetes.container.terminationMessagePath': '/dev/termination-log' },
    mounts: [{ host_path: message, container_path: '/dev/termination-log' }],
  });
  const { exitCode, reason } = await pod.ended(exits);
  assert.deepEqual([exitCode, reason], [42, 'Error']);
  assert.equal(await readFile(message, 'utf8'), 'last words\n');
  const eats = await pod.start('eats', 'tail /dev/zero', {
    linux: { resources: { memory_limit_in_bytes: 32 * 1024 * 1024 } },
  });
  const killed = await pod.ended(eats);
  assert.deepEqual([killed.exitCode, killed.reason], [137, 'OOMKilled']);
  const missing = await pod.create('missing', '', { command: ['/no/such/program'] });
  const { code, stderr } = await crictl.try(['start', missing]);
  assert.equal(code, 1);
  assert.match(stderr, /no such program|\/no\/such\/program/);
  for (const id of [exits, eats, missing]) await crictl.run('rm', id);
}

async function sharesPids({ crictl, pod }: Tour): Promise<void> {
  const alone = await pod.start('alone', 'sleep 1000', {
    linux: { security_context: { namespace_options: { pid: 1 } } },
  });
  const together = await pod.start('together', 'sleep 1000');
  const processes = async (id: string) => (await execSync(crictl, id, 'ps', '-o', 'args')).split('\n');
  assert.equal((await processes(alone)).filter((line) => /sleep 1000\b/.test(line)).length, 1);
  assert.ok((await processes(together)).filter((line) => /sleep 1000\d?/.test(line)).length >= 2);
  for (const id of [alone, together]) await crictl.run('rm', '-f', id);
}

async function isConfined({ crictl, pod }: Tour): Promise<void> {
  const script = 'id; grep -E "^(CapBnd|NoNewPrivs|Seccomp):" /proc/self/status; touch /x 2>&1; unshare -U true 2>&1';
  const id = await pod.start('confined', script, {
    linux: {
      security_context: {
        run_as_user: { value: 1000 },
        run_as_group: { value: 1001 },
        supplemental_groups: [1002],
        readonly_rootfs: true,
        no_new_privs: true,
        capabilities: { drop_capabilities: ['ALL'], add_capabilities: ['NET_RAW'] },
        seccomp: { profile_type: 0 },
      },
    },
  });
  await pod.ended(id);
  const said = await crictl.run('logs', id);
  for (const words of [
    /uid=1000 gid=1001 groups=1001.*1002/,
    /^CapBnd:\s+0000000000002000$/m,
    /^NoNewPrivs:\s+1$/m,
    /^Seccomp:\s+2$/m,
    /touch: .*Read-only file system/,
    /unshare.*not permitted/i,
  ]) {
    assert.match(said, words);
  }
  await crictl.run('rm', id);
}

async function volumes({ crictl, pod, work }: Tour): Promise<void> {
  const kubelet = join(work, 'kubelet/pods/uid-machine');
  const config = join(kubelet, 'volumes/kubernetes.io~configmap/config');
  const empty = join(kubelet, 'volumes/kubernetes.io~empty-dir/cache');
  const shared = join(work, 'shared');
  for (const directory of [join(config, '..v1'), empty, shared]) await mkdir(directory, { recursive: true });
  await writeFile(join(config, '..v1/key'), 'first');
  await symlink('..v1', join(config, '..data'));
  await symlink('..data/key', join(config, 'key'));
  await writeFile(join(kubelet, 'etc-hosts'), '127.0.0.1 localhost\n10.1.2.3 from-the-kubelet\n');
  await writeFile(join(shared, 'question'), 'question');
  const mount = (host_path: string, container_path: string, readonly = false) => ({
    host_path,
    container_path,
    readonly,
  });
  const mounts = [
    mount(config, '/config', true),
    mount(empty, '/cache'),
    mount(shared, '/shared'),
    mount(join(kubelet, 'etc-hosts'), '/etc/hosts'),
  ];
  const id = await pod.start('volumes', 'cat /shared/question; echo answer >/shared/answer; sleep 1000', { mounts });
  const read = async (path: string) => await execSync(crictl, id, 'cat', path);
  assert.equal(await read('/config/key'), 'first');
  assert.match(await read('/etc/hosts'), /from-the-kubelet/);
  await execSync(crictl, id, 'sh', '-c', 'echo kept >/cache/file');
  assert.deepEqual(await readdir(empty), [], 'an emptyDir is in the machine');
  const answer = async () => ((await readdir(shared)).includes('answer') ? true : undefined);
  assert.ok(await poll(answer, { everyMs: 100, signal: AbortSignal.timeout(20_000) }));
  assert.equal(await readFile(join(shared, 'answer'), 'utf8'), 'answer\n');
  await crictl.run('rm', '-f', id);
}

async function refuses({ crictl, work }: Tour): Promise<void> {
  // As a kubelet does, without a host name: it would be the node's.
  const linux = { hostname: '', linux: { security_context: { namespace_options: { network: 2 } } } };
  await assert.rejects(Pod.run(crictl, work, 'host-machine', 'podvm', linux), /shares the host's namespaces: network/);
  const onHost = await Pod.run(crictl, work, 'host-runc', 'runc', linux);
  await onHost.remove();
}

async function outlives({ crictl, containerd, pod, main, beside }: Tour): Promise<void> {
  const brief = await pod.start('brief', 'sleep 3; exit 42');
  const talks = await pod.start('talks', 'i=0; while :; do echo "tick $i"; i=$((i+1)); sleep 0.2; done');
  await containerd.restart();
  const running = (await crictl.run('ps', '-q', '--no-trunc')).trim().split('\n');
  for (const id of [main, beside, talks]) assert.ok(running.includes(id), id);
  assert.equal(await execSync(crictl, main, 'echo', 'here'), 'here');
  assert.equal((await pod.ended(brief)).exitCode, 42);
  const before = (await crictl.run('logs', talks)).length;
  const grows = async () => ((await crictl.run('logs', talks)).length > before ? true : undefined);
  assert.ok(await poll(grows, { everyMs: 300, signal: AbortSignal.timeout(20_000) }), 'its log goes on');
  for (const id of [brief, talks]) await crictl.run('rm', '-f', id);
}

async function outlivesDaemon({ crictl, pod, main, beside, replaceDaemon }: Tour): Promise<void> {
  const count = 'i=0; while [ $i -lt 200 ]; do echo "line $i"; i=$((i+1)); sleep 0.02; done; exit 7';
  const counts = await pod.start('counts', count);
  const answers = await pod.start('answers', 'read code; exit $code', { stdin: true });
  const brief = await pod.start('brief-end', 'sleep 2; exit 42');
  await replaceDaemon('SIGKILL', async () => {
    const running = (await crictl.run('ps', '-q', '--no-trunc')).trim().split('\n');
    for (const id of [main, beside, counts]) assert.ok(running.includes(id), id);
    await setTimeout(2000); // its end comes while no daemon runs
  });
  assert.equal((await pod.ended(brief)).exitCode, 42);
  await replaceDaemon('SIGTERM');
  assert.equal(await execSync(crictl, main, 'echo', 'here'), 'here');
  assert.equal((await pod.ended(counts)).exitCode, 7);
  const lines = Array.from({ length: 200 }, (_, at) => `line ${at}\n`).join('');
  assert.equal(await crictl.run('logs', counts), lines);
  await crictl.try(['attach', '-i', answers], Buffer.from('5\n'));
  assert.equal((await pod.ended(answers)).exitCode, 5);
  for (const id of [counts, answers, brief]) await crictl.run('rm', id);
}

async function outlivesBoth({ crictl, containerd, work, pod, main, replaceDaemon }: Tour): Promise<void> {
  const talks = await pod.start('talks', 'i=0; while :; do echo "tick $i"; i=$((i+1)); sleep 0.2; done');
  await replaceDaemon('SIGKILL', () => containerd.restart());
  const running = (await crictl.run('ps', '-q', '--no-trunc')).trim().split('\n');
  // Those of runc are not asserted: in one of three runs containerd 1.6 found its shim dead after a second restart.
  for (const id of [main, talks]) assert.ok(running.includes(id), id);
  assert.equal(await execSync(crictl, main, 'echo', 'here'), 'here');
  const before = (await crictl.run('logs', talks)).length;
  const grows = async () => ((await crictl.run('logs', talks)).length > before ? true : undefined);
  assert.ok(await poll(grows, { everyMs: 300, signal: AbortSignal.timeout(20_000) }), 'its log goes on');
  await crictl.run('rm', '-f', talks);
  const next = await Pod.run(crictl, work, 'next', 'podvm');
  const id = await next.start('main', 'echo again; sleep 1000');
  assert.equal(await execSync(crictl, id, 'hostname'), 'next');
  await next.remove();
}

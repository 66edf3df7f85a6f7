import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { join, relative } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { parseDocument } from 'yaml';
import { RuntimeService } from '#cri/schema/api_pb.ts';
import { connectTestClient } from '#cri/testing/grpc-client.ts';
import { diagnosisSchema } from '#api/finding.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { fileServersOf } from '#storage/file-server.ts';
import { sysroot } from '../images/image-tree.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { openCollector } from '../trace-collector.ts';
import { openCliNode, repo, type CliNode, type Typed } from './cli-node.ts';
import { freePort, openPrometheus } from './prometheus.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const skipProm = skip === false && spawnSync('prometheus', ['--version']).status !== 0;

const podOf = (name: string, script: string) => `apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, '${script}']
      resources: { limits: { memory: 64Mi, cpu: "1" } }
`;

/** Each query of the Grafana dashboard, with its variables filled in. */
async function queriesOfDashboard(): Promise<readonly string[]> {
  const dashboard = v.parse(
    v.object({
      panels: v.array(
        v.object({ title: v.string(), targets: v.optional(v.array(v.object({ expr: v.string() })), []) }),
      ),
    }),
    JSON.parse(await readFile(join(repo, 'deploy/grafana-dashboard.json'), 'utf8')),
  );
  return dashboard.panels.flatMap(({ targets }) =>
    targets.map(({ expr }) =>
      expr.replaceAll('$namespace', '.*').replaceAll('$pod', '.*').replaceAll('$__rate_interval', '30s'),
    ),
  );
}

/** With KVM, nothing is translated. */
const isOfTranslatedCode = (expression: string) => expression.includes('translated_code');

describe('monitoring', { skip }, () => {
  let node: CliNode;
  let daemon: Typed;
  let target: string;
  let config: string;
  let collector: Awaited<ReturnType<typeof openCollector>>;
  before(async () => {
    assert.equal(skipProm, false, 'needs the packages of test/host-packages.txt');
    collector = await openCollector();
    node = await openCliNode({ isSetUp: true });
    config = join(node.root, 'podvm.yaml');
    const authFile = join(node.root, 'auth.json');
    const auth = Buffer.from(`me:${secrets['login']}`).toString('base64');
    await writeFile(authFile, JSON.stringify({ auths: { 'registry.invalid': { auth } } }));
    await writeFile(
      config,
      `metricsAddress: 127.0.0.1:0\nauthFile: ${authFile}\ntraces: ${collector.url}\ndashboardAddress: 127.0.0.1:0\n`,
    );
    daemon = node.start(['daemon', '--config', config]);
    await daemon.shows(/serving metrics/, 300_000);
    await daemon.shows(/ info serving cri=/, 300_000);
    const [, port] = /serving metrics address=127.0.0.1 port=(\d+)/.exec(daemon.stderr()) ?? [];
    target = `127.0.0.1:${port}`;
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await collector[Symbol.asyncDispose]();
  });

  it('a real Prometheus scrapes pods and node; no panel of the dashboard is empty; the overhead is that of /proc', async () => {
    const busy = join(node.root, 'busy.yaml');
    await mkdir(join(node.root, 'busy-files'));
    await writeFile(
      busy,
      [
        podOf('busy', 'i=0; while :; do i=$((i+1)); echo $i >/shared/file; rm /shared/file; done').replace(
          '      resources',
          '      volumeMounts: [{ name: shared, mountPath: /shared }]\n      resources',
        ),
        `  volumes: [{ name: shared, hostPath: { path: ${node.root}/busy-files } }]\n`,
        '---\n',
        podOf('quiet', 'echo hello; sleep 1000000'),
      ].join(''),
    );
    const pods = node.start(['run', busy]);
    const failing = join(node.root, 'failing.yaml');
    await writeFile(failing, podOf('failing', 'true').replace('base:latest', 'absent:1'));
    await pods.shows(/quiet\S* .*hello|hello/, 120_000);
    await node.type(['run', failing]); // its image cannot be pulled
    await using prometheus = await openPrometheus(join(node.root, 'prometheus'), target);

    await prometheus.found('up{job="podvm"} == 1');
    const [usage] = await prometheus.found('container_cpu_usage_seconds_total{container="main", pod="busy"} > 1');
    assert.equal(usage?.metric['namespace'], 'default');
    assert.equal(usage.metric['image'], 'localhost/podvm/base:latest');
    await prometheus.found('rate(container_cpu_usage_seconds_total{container="main", pod="busy"}[30s]) > 0.01');

    const isEmulated = (await prometheus.query('podvm_pod_info{accelerator="tcg"}')).length > 0;
    const queries = await queriesOfDashboard();
    assert.equal(queries.filter(isOfTranslatedCode).length, 2);
    for (const expression of queries)
      if (isEmulated || !isOfTranslatedCode(expression)) await prometheus.found(expression);
    for (const expression of await expressionsOfRules()) await prometheus.query(expression);

    // The machine's processors do nearly all that a busy VMM does.
    await prometheus.found(
      'podvm_pod_vcpu_seconds_total{pod="busy"} / podvm_pod_vmm_cpu_seconds_total{pod="busy"} > 0.5 < 1.02',
    );
    const changes = 'podvm_pod_file_server_request_seconds_count{pod="busy", operation="change"}';
    await prometheus.found(`rate(${changes}[30s]) > 1`);
    await figuresAgree(node, target, isEmulated);
    await overheadAgrees(node);
    await textIsValid(target);

    const told = await node.type(['describe', 'busy']);
    assert.equal(told.code, 0, told.stderr);
    assert.match(told.stdout, /^Pod: +default\/busy\nState: +Running\n/);
    for (const title of ['Containers', 'Events', 'Memory and processor', 'Start', 'Machine']) {
      assert.match(told.stdout, new RegExp(`^${title}:$`, 'm'));
    }
    assert.match(told.stdout, /^ {2}jail: +complete$/m);
    assert.match(told.stdout, /^ {2}\(machine\) +\d+\.\d MiB/m);

    pods.child.kill('SIGINT');
    await pods.ended;
  });

  it('doctor finds what is wrong with a pod from inside and outside, and does not wait for a guest that hangs', async () => {
    const linked = podOf('neighbour', 'readlink /var/run; sleep 1000000')
      .replace(
        '      resources',
        '      volumeMounts: [{ name: below, mountPath: /var/run/below/link }]\n      resources',
      )
      .replace('localhost/podvm/base:latest', await loadLinked(node))
      .concat('  volumes: [{ name: below, emptyDir: {} }]\n');
    await writeFile(join(node.root, 'neighbour.yaml'), linked);
    const quiet = node.start(['run', join(node.root, 'neighbour.yaml')]);
    await quiet.shows(/\/run\n/, 120_000); // /var/run is a link of the image
    const address = await until(async () => (await inspect(node, 'neighbour'))?.addresses[0]);
    const gateway = address.replace(/\d+$/, '1');
    await using _dns = await serveDns(gateway);
    const shared = join(node.root, 'shared');
    await mkdir(shared);
    const ill = join(node.root, 'ill.yaml');
    await writeFile(ill, illPod({ shared, nameservers: [gateway, '127.0.0.1'], hostPort: await freePort() }));
    const pods = node.start(['run', ill]);
    await pods.shows(/is ill/, 120_000);
    const { id, vmmPid } = await until(async () => (await inspect(node, 'ill'))?.sandbox);
    const [server] = await fileServersOf(id);
    assert.ok(server !== undefined);

    const well = await node.type(['doctor', 'neighbour']);
    assert.equal(well.code, 0, well.stdout + well.stderr);
    assert.match(well.stdout, /^ok +mounts of main +1 as asked$/m);
    assert.match(well.stdout, /^ok +disk of main +[\d.]+ of [\d.]+ MiB written outside of volumes$/m);

    process.kill(server.pid, 'SIGSTOP');
    const told = await node.type(['doctor', 'ill', '-o', 'json']);
    process.kill(server.pid, 'SIGCONT');
    assert.equal(told.code, 1, told.stderr);
    const { findings } = v.parse(diagnosisSchema, JSON.parse(told.stdout));
    const found = findings.map(({ name, status, detail }) => `${status} ${name}: ${detail}`).join('\n');
    for (const line of [
      /^ok machine: ready/,
      /^ok agent: answers in /,
      /^warn clock: \d+\.\d+ s behind the host's/,
      /^ok address: 10\./,
      /^ok gateway: 10\.[\d.]+ answers$/,
      /^ok dns: 10\.[\d.]+ answers about the root in \d+ ms$/,
      /^fail dns: 127\.0\.0\.1: nothing listens there \(ECONNREFUSED\)$/,
      /^ok host ports: 1 held$/,
      /^fail mounts of main: \/cache is not mounted$/,
      /^fail mounts of main: \/shared waits: the file server of .* is stopped$/,
      /^ok volume: cache: [\d.]+ of [\d.]+ MiB free/,
      /^ok memory: [\d.]+ MiB of 64\.0 MiB/,
      /^ok out of memory: no process was killed$/,
      /^ok versions: /,
    ]) {
      assert.match(found, new RegExp(line.source, 'm'));
    }
    assert.ok(findings.every(({ status, fix }) => status === 'ok' || status === 'skip' || fix !== undefined));

    process.kill(vmmPid, 'SIGSTOP');
    const hung = await node.type(['doctor', 'ill']);
    process.kill(vmmPid, 'SIGCONT');
    assert.equal(hung.code, 1, hung.stderr);
    assert.match(hung.stdout, /^fail +agent +the guest does not answer: .*in time\n +See its last lines with/m);
    assert.match(hung.stdout, /^skip +mounts of main /m);
    for (const { child } of [pods, quiet]) child.kill('SIGINT');
    await Promise.all([pods.ended, quiet.ended]);
  });

  it('the start of a pod is one trace, from the call of a client that traces to the steps of machine, network, guest and container', async () => {
    const [trace, parent] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')];
    using client = connectTestClient(join(node.root, 'cri.sock'));
    const runtime = client.of(RuntimeService);
    const traced = { headers: { traceparent: `00-${trace}-${parent}-01` } };
    const metadata = { name: 'traced', namespace: 'default', uid: 'uid-of-traced', attempt: 0 };
    const sandboxConfig = { metadata, logDirectory: join(node.root, 'traced-logs') };
    const { podSandboxId } = await runtime.runPodSandbox({ config: sandboxConfig }, traced);
    const main = { metadata: { name: 'main', attempt: 0 }, image: { image: 'localhost/podvm/base:latest' } };
    const config = { ...main, command: ['sleep', '1000000'], logPath: 'main.log' };
    const { containerId } = await runtime.createContainer({ podSandboxId, sandboxConfig, config }, traced);
    await runtime.startContainer({ containerId }, traced);

    const ofTrace = () => collector.spans.filter(({ traceId }) => traceId === trace);
    const spanOf = (name: string) => ofTrace().find((span) => span.name === name);
    await until(async () => spanOf('StartContainer'));
    for (const name of ['RunPodSandbox', 'CreateContainer', 'StartContainer']) {
      assert.deepEqual([spanOf(name)?.parentSpanId, spanOf(name)?.kind], [parent, 2], name);
    }
    const slackNs = 5e6; // the clocks of steps and calls are two
    const isWithin = (name: string, around: string) => {
      const [span, outer] = [spanOf(name), spanOf(around)];
      assert.ok(
        span !== undefined && outer !== undefined,
        `${name} of ${ofTrace()
          .map((each) => each.name)
          .join()}`,
      );
      assert.equal(span.parentSpanId, outer.spanId, name);
      assert.ok(span.endTimeUnixNano > span.startTimeUnixNano, name);
      assert.ok(span.startTimeUnixNano >= outer.startTimeUnixNano - slackNs, name);
      assert.ok(span.endTimeUnixNano <= outer.endTimeUnixNano + slackNs, name);
    };
    isWithin('start sandbox', 'RunPodSandbox');
    const steps = ['machine started', 'agent answered', 'network connected', 'guest configured'];
    for (const step of steps) isWithin(step, 'start sandbox');
    const [connected, sandboxStart, started] = [
      await until(async () => spanOf('guest connected')), // ends while the container is made, or before
      spanOf('start sandbox'),
      spanOf('StartContainer'),
    ];
    assert.equal(connected.parentSpanId, sandboxStart?.spanId);
    assert.ok(connected.endTimeUnixNano <= (started?.endTimeUnixNano ?? 0) + slackNs);
    isWithin('create container', 'CreateContainer');
    for (const step of ['image held', 'container made']) isWithin(step, 'create container');
    assert.ok(ofTrace().every(({ status }) => (status.code ?? 0) !== 2));
    assert.equal(collector.spans.filter(({ name }) => name === 'ListPodSandbox').length, 0);

    // The same id goes to the guest and back: what fails there names it, as do both logs.
    const unified = { 'pids.max': '999999999' }; // more than the guest's kernel takes
    const changed = runtime.updateContainerResources({ containerId, linux: { unified } }, traced);
    const told = await changed.then(String, (thrown: unknown) => String(thrown));
    assert.match(told, new RegExp(`in call updateContainer of request ${trace}`));
    await daemon.shows(new RegExp(` verb failed request=${trace} verb=UpdateContainerResources .*${trace}`));
    const line = new RegExp(`call updateContainer failed \\(\\w+\\), request ${trace}$`, 'm');
    // The guest prints it after its answer.
    await until(async () => (line.test((await node.type(['describe', 'traced'])).stdout) ? true : undefined));
    await runtime.removePodSandbox({ podSandboxId });
  });

  it('a support bundle has what a report needs, results of doctor included, and nothing that is secret', async () => {
    const file = join(node.root, 'secretive.yaml');
    await writeFile(file, secretivePod);
    const pods = node.start(['run', file]);
    await pods.shows(/says /, 120_000);
    await until(async () => (/Unhealthy/.test((await node.type(['describe', 'secretive'])).stdout) ? true : undefined));
    const output = join(node.root, 'support.tar.gz');
    const told = await node.type(['support-bundle', '-o', output, '--config', config]);
    assert.equal(told.code, 0, told.stderr);
    assert.match(told.stdout, /^Logs of containers are not in it; --logs adds/m);
    assert.equal((await stat(output)).mode & 0o777, 0o600);
    const bundle = await unpacked(output);
    for (const [name, wanted] of [
      ['versions.json', /"qemu": "/],
      ['settings.json', /"authFile": "/],
      ['doctor.json', /"isHealthy"/],
      ['disk.json', /"totalBytes"/],
      ['host.txt', /MemAvailable/],
      ['node/metrics.txt', /^podvm_/m],
      ['node/log.txt', / info sandbox /],
      ['node/pods.json', /"name": "secretive"/],
      ['pods/default_secretive/description.json', /"reason": "Unhealthy"/],
      ['pods/default_secretive/machine.json', /"jail"/],
      ['pods/default_secretive/doctor.json', /"agent"/],
    ] as const) {
      assert.match(bundle.get(name) ?? '', wanted, name);
    }
    assert.deepEqual(secretsIn(bundle), []);

    const { stdout: log } = await node.type(['logs', 'secretive', '-c', 'main']);
    assert.deepEqual(secretsIn(new Map([['its log', log]])), ['log in its log']); // finds what is there
    pods.child.kill('SIGINT');
    await pods.ended;
  });

  it('the daemon serves the dashboard by a setting, to those who can read its token', async () => {
    const file = join(node.root, 'dashboard.url');
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    const url = (await readFile(file, 'utf8')).trim();
    const [origin, token] = url.split('/#token=');
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/#token=[0-9a-f]{64}$/);
    assert.ok(!daemon.stderr().includes(token ?? ''), 'the token is not in the log');
    assert.equal((await fetch(`${origin}/v1/version`)).status, 403);
    const answer = await fetch(`${origin}/v1/version`, { headers: { authorization: `Bearer ${token}` } });
    assert.match(await answer.text(), /"podvm":/);
    assert.equal((await fetch(`${origin}/assets/main.js`)).status, 200);
  });

  it('a node whose memory is short refuses a pod with the reason', async () => {
    process.env['PODVM_MEMORY_RESERVE_MIB'] = '1000000'; // more than it has
    try {
      await using short = await openCliNode({ isSetUp: true, pool: '1' });
      const { code, stdout, stderr } = await short.type(['run', '--name', 'late', 'localhost/podvm/base', 'true']);
      assert.equal(code, 125);
      assert.match(`${stdout}${stderr}`, /the node has \d+ MiB of memory available, of which it keeps 1000000 MiB/);
      assert.match(
        `${stdout}${stderr}`,
        /fix: Stop a pod or another program of the node, or lower the setting memoryReserveMiB/,
      );
    } finally {
      delete process.env['PODVM_MEMORY_RESERVE_MIB'];
    }
  });

  it('the event of a pod whose guest panics has its last lines, which the daemon kept in memory', async () => {
    const panicking = join(node.root, 'panicking.yaml');
    const yaml = podOf('panicking', 'echo c > /proc/sysrq-trigger; sleep 1000000');
    await writeFile(
      panicking,
      yaml.replace('      resources', '      securityContext: { privileged: true }\n      resources'),
    );
    const { stderr, stdout } = await node.type(['run', panicking]);
    assert.match(`${stdout}${stderr}`, /the guest's last lines: .*(Kernel panic|sysrq triggered crash)/i);
    const failures = (await scrape(target))
      .split('\n')
      .find((line) => line.startsWith('podvm_machine_failures_total '));
    assert.equal(failures, 'podvm_machine_failures_total 1');
  });
});

/** A secret for each place in which a pod or a node may have one. */
const secrets = Object.fromEntries(
  ['env', 'file', 'login', 'pull', 'argument', 'annotation', 'probe', 'message', 'log'].map((place) => [
    place,
    `${place}-${randomBytes(12).toString('hex')}`,
  ]),
);

const pullSecret = JSON.stringify({ auths: { 'registry.invalid': { username: 'me', password: secrets['pull'] } } });

const secretivePod = `apiVersion: v1
kind: Secret
metadata: { name: given }
stringData: { file: ${secrets['file']} }
---
apiVersion: v1
kind: Secret
metadata: { name: pull }
type: kubernetes.io/dockerconfigjson
stringData: { .dockerconfigjson: '${pullSecret}' }
---
apiVersion: v1
kind: Pod
metadata:
  name: secretive
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"value": "${secrets['annotation']}"}'
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  imagePullSecrets: [{ name: pull }]
  volumes: [{ name: given, secret: { secretName: given } }]
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, 'echo says ${secrets['log']}; exec sleep 1000000', '${secrets['argument']}']
      env:
        - { name: PLAIN, value: ${secrets['env']} }
        - { name: REFERRED, valueFrom: { secretKeyRef: { name: given, key: file } } }
      volumeMounts: [{ name: given, mountPath: /given }]
      readinessProbe: { periodSeconds: 1, exec: { command: [sh, -c, 'echo ${secrets['probe']}; exit 1'] } }
    - name: ended
      image: localhost/podvm/base:latest
      command: [sh, -c, 'echo ${secrets['message']} >/dev/termination-log; exit 3']
`;

/** The files of a bundle by their names. */
async function unpacked(bundle: string): Promise<ReadonlyMap<string, string>> {
  const directory = `${bundle}.unpacked`;
  await mkdir(directory);
  await run('tar', ['--extract', `--file=${bundle}`, `--directory=${directory}`]);
  const root = join(directory, 'podvm-support');
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(
    await Promise.all(names.map(async (name) => [relative(root, name), await readFile(name, 'utf8')] as const)),
  );
}

/** Secrets in texts, as they are or in base64, wherever they begin in it. */
function secretsIn(files: ReadonlyMap<string, string>): readonly string[] {
  return Object.entries(secrets).flatMap(([place, secret]) => {
    const encoded = [0, 1, 2].map((offset) =>
      Buffer.from('x'.repeat(offset) + secret)
        .toString('base64')
        .slice(offset === 0 ? 0 : 4, -4),
    );
    return [...files].flatMap(([name, text]) =>
      [secret, ...encoded].some((form) => text.includes(form)) ? [`${place} in ${name}`] : [],
    );
  });
}

interface Inspected {
  readonly addresses: readonly string[];
  readonly sandbox?: { readonly id: string; readonly vmmPid: number };
}

async function inspect(node: CliNode, pod: string): Promise<Inspected | undefined> {
  const { code, stdout } = await node.type(['inspect', pod]);
  return code === 0 ? (JSON.parse(stdout) as Inspected) : undefined;
}

async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  const found = await poll(look, { everyMs: 200, signal: AbortSignal.timeout(120_000) });
  assert.ok(found !== undefined);
  return found;
}

/** Loads an image whose /var/run is a link, as in most images, and returns its name. */
async function loadLinked(node: CliNode): Promise<string> {
  const name = 'localhost/linked:1';
  const busybox = await readFile(join(await sysroot(), 'usr/bin/busybox'));
  const links = { 'bin/sh': 'busybox', 'bin/sleep': 'busybox', 'bin/readlink': 'busybox', 'var/run': '/run' };
  const layer = [
    { name: 'bin/busybox', content: busybox, mode: 0o755 },
    ...Object.entries(links).map(([from, target]) => ({ name: from, type: 'symlink' as const, target })),
    { name: 'run', type: 'directory' as const },
  ];
  const layout = join(node.root, 'linked');
  await writeLayout(layout, [{ layers: [layer], name }]);
  const told = await node.type(['image', 'load', layout]);
  assert.equal(told.code, 0, told.stderr);
  return name;
}

/** A privileged pod that has unmounted a volume and set its clock back. */
const illPod = (of: { readonly shared: string; readonly nameservers: readonly string[]; readonly hostPort: number }) =>
  `${podOf('ill', 'date -s @1000000000; umount /cache; echo is ill; sleep 1000000').replace(
    '      resources',
    `      securityContext: { privileged: true }
      ports: [{ containerPort: 80, hostPort: ${of.hostPort} }]
      volumeMounts: [{ name: shared, mountPath: /shared }, { name: cache, mountPath: /cache }]
      resources`,
  )}  dnsPolicy: None
  dnsConfig: { nameservers: [${of.nameservers.join(', ')}] }
  volumes: [{ name: shared, hostPath: { path: ${of.shared} } }, { name: cache, emptyDir: {} }]
`;

/** A name server that answers every question with nothing, and no error. */
async function serveDns(address: string): Promise<AsyncDisposable> {
  const socket = createSocket('udp4', (question, from) => {
    question.writeUInt16BE(0x8180, 2);
    socket.send(question, from.port, from.address);
  });
  socket.bind(53, address);
  await once(socket, 'listening');
  return { [Symbol.asyncDispose]: () => new Promise((resolve) => void socket.close(() => resolve())) };
}

async function expressionsOfRules(): Promise<readonly string[]> {
  const text = await readFile(join(repo, 'deploy/prometheus-rules.yaml'), 'utf8');
  const rules = v.parse(
    v.object({ groups: v.array(v.object({ rules: v.array(v.object({ expr: v.string() })) })) }),
    parseDocument(text).toJS(),
  );
  return rules.groups.flatMap((group) => group.rules.map(({ expr }) => expr));
}

const scrape = async (target: string) => await (await fetch(`http://${target}/metrics`)).text();

function valueOf(text: string, name: string, pod: string): number {
  const line = text.split('\n').find((each) => each.startsWith(`${name}{`) && each.includes(`pod="${pod}"`));
  return Number(line?.split(' ').at(-1));
}

/** The figures of a pod that rests are those of its VMM in /proc, within 2 %. */
async function figuresAgree(node: CliNode, target: string, isEmulated: boolean): Promise<void> {
  const details = JSON.parse((await node.type(['inspect', 'quiet'])).stdout) as { sandbox: { vmmPid: number } };
  const deadline = AbortSignal.timeout(60_000);
  const isNear = (one: number, other: number) => Math.abs(one - other) <= 0.02 * other;
  for (;;) {
    const { vmmPid } = details.sandbox;
    const rollup = await readFile(`/proc/${vmmPid}/smaps_rollup`, 'latin1');
    const stat = (await readFile(`/proc/${vmmPid}/stat`, 'latin1')).split(') ')[1]?.split(' ') ?? [];
    const kib = (name: string) => 1024 * Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(rollup)?.[1]);
    const text = await scrape(target);
    const privateBytes = kib('Anonymous');
    const sharedBytes = kib('Rss') - privateBytes;
    const cpuSeconds = (Number(stat[11]) + Number(stat[12])) / 100;
    const used = valueOf(text, 'container_memory_usage_bytes', 'quiet');
    const pairs = [
      [valueOf(text, 'podvm_pod_vmm_private_memory_bytes', 'quiet'), privateBytes],
      [valueOf(text, 'podvm_pod_vmm_shared_memory_bytes', 'quiet'), sharedBytes],
      [valueOf(text, 'podvm_pod_vmm_cpu_seconds_total', 'quiet'), cpuSeconds],
      [valueOf(text, 'podvm_pod_memory_overhead_bytes', 'quiet'), privateBytes - used],
      [valueOf(text, 'podvm_pod_memory_overhead_ratio', 'quiet'), privateBytes / used],
      ...(isEmulated ? [[valueOf(text, 'podvm_pod_translated_code_bytes', 'quiet'), await codeOf(vmmPid)]] : []),
    ];
    if (pairs.every(([one, other]) => isNear(one ?? NaN, other ?? NaN))) return;
    if (deadline.aborted) throw new Error(`figures differ: ${JSON.stringify(pairs)}`);
    await delay(500);
  }
}

/** What `podvm overhead` and `podvm top` say of a pod that rests is its VMM's memory in /proc less the pod's own, within 2 %. */
async function overheadAgrees(node: CliNode): Promise<void> {
  const deadline = AbortSignal.timeout(120_000);
  const wanted = v.array(
    v.looseObject({
      pod: v.string(),
      memoryBytes: v.number(),
      memoryRequestBytes: v.number(),
      privateBytes: v.number(),
    }),
  );
  for (;;) {
    const { vmmPid } = (await inspect(node, 'quiet'))?.sandbox ?? assert.fail('no machine');
    const rollup = await readFile(`/proc/${vmmPid}/smaps_rollup`, 'latin1');
    const privateBytes = 1024 * Number(/^Anonymous: +(\d+) kB/m.exec(rollup)?.[1]);
    const [overhead, asYaml, top] = await Promise.all([
      node.type(['overhead']),
      node.type(['overhead', '-o', 'yaml']),
      node.type(['top', '-o', 'json', '--no-stream']),
    ]);
    const used = v.parse(wanted, JSON.parse(top.stdout)).find(({ pod }) => pod === 'default/quiet');
    const [, mebibytes = ''] = /^default\/quiet +(-?[\d.]+) MiB/m.exec(overhead.stdout) ?? [];
    const most = Math.max(
      ...[...overhead.stdout.matchAll(/^default\/\S+ +(-?[\d.]+) MiB/gm)].map(([, it]) => Number(it)),
    );
    const [, declared = ''] = /memory: (\d+)Mi/.exec(asYaml.stdout) ?? [];
    const real = privateBytes - (used?.memoryBytes ?? NaN);
    const isNear = (one: number, other: number) => Math.abs(one - other) <= 0.02 * other;
    const agrees =
      used?.memoryRequestBytes === 64 * 2 ** 20 &&
      isNear(used.privateBytes, privateBytes) &&
      isNear(Number(mebibytes) * 2 ** 20, real) &&
      isNear(Number(declared), Math.ceil(most));
    if (agrees) return;
    if (deadline.aborted)
      assert.fail(`${real} bytes and ${most} MiB, but: ${overhead.stdout}${asYaml.stdout}${top.stdout}`);
    await delay(500); // the two commands measure one after the other, and a pod must be half a minute old
  }
}

/** Resident memory that is writable and executable, as the kernel sums it (`smaps`). */
async function codeOf(pid: number): Promise<number> {
  const smaps = await readFile(`/proc/${pid}/smaps`, 'latin1');
  const areas = smaps.matchAll(/^[0-9a-f]+-[0-9a-f]+ rwx[^]*?^Rss: +(\d+) kB/gm);
  return [...areas].reduce((sum, [, kib]) => sum + 1024 * Number(kib), 0);
}

/** Both formats are valid; what promtool says of names concerns cAdvisor's only. */
async function textIsValid(target: string): Promise<void> {
  const checked = spawnSync('promtool', ['check', 'metrics'], { input: await scrape(target), encoding: 'utf8' });
  const complaints = checked.stderr
    .trim()
    .split('\n')
    .filter((line) => line !== '');
  assert.deepEqual(
    complaints.filter((line) => !line.startsWith('container_')),
    [],
  );
  assert.ok(checked.status === 0 || checked.status === 3, checked.stderr);
}

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as v from 'valibot';
import { podDetailsSchema } from '#api/pods.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { guestLevel, levelOfFlags } from '#vm/qemu/processor/processor-level.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { startRegistry } from '../images/registry.ts';
import { readAssets, whyNoVm } from './node.ts';
import { type CliNode, openCliNode, type Typed } from './cli-node.ts';

const skip = await whyNoVm();
const image = 'localhost/podvm/base:latest';
const forever = 'while :; do sleep 0.1; done';
const container = (name: string, script: string, more = '') =>
  `{name: ${name}, image: ${image}, command: [sh, -c, ${JSON.stringify(script)}]${more}}`;

const findingsSchema = v.object({
  findings: v.array(v.object({ name: v.string(), status: v.string(), detail: v.string() })),
});

const pod = (name: string, containers: string, more = '') => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec: {restartPolicy: Never, terminationGracePeriodSeconds: 20, containers: [${containers}]${more}}
`;

describe('podvm, from a second terminal', { skip, timeout: 600_000 }, () => {
  let cli: CliNode;
  let keeper: Typed;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    keeper = cli.start(
      ['run', '-'],
      pod('keeper', container('main', `echo up; ${forever}`, ', securityContext: {privileged: true}')),
    );
    await keeper.shows(/up/);
  });
  after(async () => await cli[Symbol.asyncDispose]());
  const start = (yaml: string) => cli.start(['run', '--network', 'none', '-'], yaml);

  it('logs -f follows to the end of the pod', async () => {
    const running = start(
      pod('teller', container('main', 'echo one; until [ -e /tmp/go ]; do sleep 0.1; done; echo two')),
    );
    await running.shows(/one/);
    const following = cli.start(['logs', '-f', 'teller']);
    await following.shows(/one/);
    assert.equal((await cli.type(['exec', 'teller', '--', 'touch', '/tmp/go'])).code, 0);
    assert.deepEqual(await following.ended, { code: 0, stdout: 'one\ntwo\n', stderr: '' });
    assert.equal((await running.ended).code, 0);
  });

  it('a pod has a user namespace and an image volume if its file says so', async () => {
    const mounts = ', volumeMounts: [{name: tools, mountPath: /tools, subPath: bin}]';
    const script = 'cat /proc/self/uid_map; ls /tools/sh; touch /tools/x';
    const volumes = `, hostUsers: false, volumes: [{name: tools, image: {reference: ${image}}}]`;
    const { code, stdout, stderr } = await start(pod('mapped', container('main', script, mounts), volumes)).ended;
    assert.match(stdout, /^\s*0\s+65536\s+65536\n\/tools\/sh\n/, stderr);
    assert.match(stdout + stderr, /touch: \/tools\/x: Read-only file system/);
    assert.equal(code, 1);
  });

  it('stop ends a pod gracefully, and the command that ran it returns its exit code', async () => {
    const running = start(pod('polite', container('main', `trap 'echo bye; exit 5' TERM; echo up; ${forever}`)));
    await running.shows(/up/);
    const stopped = await cli.type(['stop', 'polite']);
    assert.deepEqual({ code: stopped.code, stdout: stopped.stdout }, { code: 0, stdout: 'default/polite stopped\n' });
    const { code, stdout } = await running.ended;
    assert.deepEqual({ code, stdout }, { code: 5, stdout: 'up\nbye\n' });
  });

  it('a sidecar starts first and is stopped last', async () => {
    const says = (name: string) =>
      `trap 'echo ${name} leaves; exit 0' TERM; echo ${name} is here; touch /tmp/here; ${forever}`;
    const sidecar = container(
      'side',
      says('sidecar'),
      ', restartPolicy: Always, startupProbe: {periodSeconds: 1, exec: {command: [test, -e, /tmp/here]}}',
    );
    const running = start(pod('pair', container('main', says('main')), `, initContainers: [${sidecar}]`));
    await running.shows(/main is here/);
    running.child.kill('SIGINT');
    const { stdout } = await running.ended;
    const said = [...stdout.matchAll(/(sidecar|main) (is here|leaves)/g)].map(([words]) => words);
    assert.deepEqual(said, ['sidecar is here', 'main is here', 'main leaves', 'sidecar leaves']);
  });

  it('a container that fails repeatedly is in CrashLoopBackOff, with the reason', async () => {
    const running = start(pod('loop', container('main', 'echo failing; exit 3')).replace('Never', 'Always'));
    const deadline = AbortSignal.timeout(60_000);
    for (let seen = ''; !seen.includes('CrashLoopBackOff');) {
      deadline.throwIfAborted();
      seen = (await cli.type(['ps'])).stdout;
    }
    assert.match((await cli.type(['inspect', 'loop'])).stdout, /"reason": "BackOff"/);
    running.child.kill('SIGINT');
    await running.ended;
  });

  it('inspect shows the VMM’s jail as the kernel reports it, with no weakness', async () => {
    const { stdout } = await cli.type(['inspect', 'keeper']);
    const { sandbox } = v.parse(podDetailsSchema, JSON.parse(stdout));
    assert.deepEqual(sandbox?.jail?.weaknesses, []);
    assert.equal(sandbox.jail.seccompFilters, 2);
    assert.ok(sandbox.jail.uid > 0);
  });

  it('doctor has the plugins check the networks of running pods', async () => {
    const { stdout } = await cli.type(['doctor', '--json']);
    const { findings } = v.parse(findingsSchema, JSON.parse(stdout));
    const [attachment, ...more] = findings.filter(({ name }) => name === 'attachments');
    assert.deepEqual([attachment?.status, more], ['ok', []], stdout);
    assert.match(attachment?.detail ?? '', /^default\/keeper on podvm: found well by bridge/);
    const packets = findings.filter(({ name }) => name === 'pod packets');
    assert.match(
      JSON.stringify(packets),
      /"ok","detail":"dropped since the creation of the bridge: 0 for loopback, 0 of too/,
    );
    const { sandbox } = v.parse(podDetailsSchema, JSON.parse((await cli.type(['inspect', 'keeper'])).stdout));
    assert.deepEqual(sandbox?.stats?.dropped, { forged: 0, loopback: 0, connections: 0, services: 0 });
  });

  it('the guest has the processor for which images are chosen', async () => {
    const { stdout } = await cli.type(['exec', 'keeper', '--', 'cat', '/proc/cpuinfo']);
    const { sandbox } = v.parse(podDetailsSchema, JSON.parse((await cli.type(['inspect', 'keeper'])).stdout));
    const accelerator = sandbox?.accelerator === 'kvm' ? 'kvm' : 'tcg';
    const chosenFor = guestLevel(
      accelerator,
      (await readAssets())?.qemuVersion ?? '',
      await readFile('/proc/cpuinfo', 'utf8'),
    );
    assert.equal(levelOfFlags(stdout), chosenFor);
  });

  it('names of images can be added and removed one by one', async () => {
    await using registry = await startRegistry();
    const layers = [[{ name: 'hello', content: 'hello' }]];
    const [written] = await writeLayout(join(cli.root, 'hello-layout'), [
      { layers, config: { config: { User: '7' } } },
    ]);
    assert.ok(written);
    await registry.push(written.layout, 'team/hello:1');
    const said = async (...args: readonly string[]) => {
      const { code, stdout, stderr } = await cli.type(['image', ...args]);
      assert.equal(code, 0, stderr);
      return stdout;
    };
    const name = `${registry.name}/team/hello`;
    // The command prints the reference as typed, not a name that the image had before.
    for (const asked of [`${name}:1`, `${name}@${written.manifestDigest}`, `${name}:2@${written.manifestDigest}`]) {
      assert.equal(await said('pull', asked), `${asked}\n`);
    }
    await said('rm', `${name}:1`);
    await said('pull', `${name}@${written.manifestDigest}`);
    assert.match(await said('ls'), /\/team\/hello:<none> /);
    await said('pull', `${name}:1`);
    assert.equal(await said('load', written.layout, '--name', 'hello:1'), 'docker.io/library/hello:1\n');
    assert.equal(await said('tag', 'hello:1', 'hello'), '');
    const { references, digests, config, ...more } = JSON.parse(await said('inspect', 'hello')) as Record<
      string,
      unknown
    >;
    const [first, second] = ['docker.io/library/hello:1', 'docker.io/library/hello:latest'];
    assert.deepEqual([references, digests], [[`${name}:1`, first, second], [`${name}@${written.manifestDigest}`]]);
    assert.deepEqual(config, { user: '7' });
    assert.equal(more['id'], written.id);
    assert.ok(Number(more['sizeBytes']) > 0 && !Number.isNaN(Date.parse(String(more['createdAt']))));

    assert.equal(await said('rm', 'hello:1'), `${first} untagged\n`);
    assert.equal(await said('rm', `${name}:1`), `${name}:1 untagged\n${name}@${written.manifestDigest} untagged\n`);
    assert.equal(await said('rm', 'hello'), `${second} untagged\n${written.id} removed\n`);
    assert.doesNotMatch(await said('ls'), /hello/);
    const missing = await cli.type(['image', 'inspect', 'hello']);
    assert.match(missing.stderr, /Cannot inspect image hello: no such image on this node/);
  });

  it("console shows the output of the guest's kernel", async () => {
    const command = ['sh', '-c', "echo '<0>a word from the kernel' >/dev/kmsg"];
    assert.equal((await cli.type(['exec', 'keeper', '--', ...command])).code, 0);
    const isShown = async () =>
      /a word from the kernel/.test((await cli.type(['console', 'keeper'])).stdout) || undefined;
    assert.ok(await poll(isShown, { everyMs: 100, signal: AbortSignal.timeout(60_000) }));
  });

  it('exec -it passes changes of our terminal’s size to the command', async () => {
    const inside = `trap 'stty size; exit 0' WINCH; echo ready; ${forever}`;
    const line = `tty; exec ./podvm --root ${cli.root} exec -it keeper -- sh -c "${inside}"`;
    const terminal = spawn('script', ['-qec', line, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
    let shown = '';
    for await (const text of terminal.stdout.setEncoding('utf8') as AsyncIterable<string>) {
      shown += text;
      const ours = /\/dev\/pts\/\d+/.exec(shown)?.[0];
      if (ours === undefined || !shown.includes('ready')) continue;
      if (!shown.includes('40 100')) await run('stty', ['-F', ours, 'rows', '40', 'cols', '100']);
    }
    if (terminal.exitCode === null) await once(terminal, 'exit');
    assert.match(shown, /ready\r\n[^]*40 100\r\n/);
  });
});

import assert from 'node:assert/strict';
import { run } from '#host/process/run.ts';
import { after, before, describe, it } from 'node:test';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode, type Typed } from './cli-node.ts';

const skip = await whyNoVm();
const image = 'localhost/podvm/base:latest';

/** Two containers with a ConfigMap and a Secret; both print that they are up, and their exit code on SIGTERM. */
const talk = `
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: good morning}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {word: sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  restartPolicy: Never
  initContainers:
    - {name: first, image: ${image}, command: [sh, -c, echo init]}
  containers:
    - name: a
      image: ${image}
      command: [sh, -c, "trap 'echo got TERM; exit 3' TERM; echo $GREETING $WORD; while :; do sleep 0.1; done"]
      env:
        - {name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}
        - {name: WORD, valueFrom: {secretKeyRef: {name: hidden, key: word}}}
    - {name: b, image: ${image}, command: [sh, -c, "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"]}
`;

const once = (script: string) => `
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers: [{name: it, image: ${image}, command: [sh, -c, ${JSON.stringify(script)}]}]
`;

/** With a grace period that no test waits for. */
const stubborn = once("trap '' TERM; echo up; while :; do sleep 0.1; done").replace(
  'spec:\n',
  'spec:\n  terminationGracePeriodSeconds: 3600\n',
);

describe('podvm, as it is typed', { skip }, () => {
  let cli: CliNode;
  let talking: Typed;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    talking = cli.start(['run', '-'], talk);
    await talking.shows(/good morning/);
    await talking.shows(/talk\/b +\| up/);
  });
  after(async () => await cli[Symbol.asyncDispose]());

  it('run prefixes lines with pod and container, init containers first', () => {
    assert.match(talking.stdout(), /^talk\/first +\| init\n[^]*talk\/a +\| good morning sesame\n/);
  });

  it('ps lists the pod', async () => {
    const { code, stdout } = await cli.type(['ps']);
    assert.equal(code, 0);
    assert.match(stdout, /^NAMESPACE +NAME +READY[^]*\ndefault +talk +2\/2 +Running +0 /);
  });

  it('logs prints the output of one container only', async () => {
    assert.equal((await cli.type(['logs', 'talk'])).stdout, 'good morning sesame\n');
    assert.equal((await cli.type(['logs', 'talk', '-c', 'first'])).stdout, 'init\n');
  });

  it("exec ends with the command's exit code", async () => {
    assert.equal((await cli.type(['exec', 'talk', '--', 'sh', '-c', 'exit 9'])).code, 9);
  });

  it('exec ends with 127 for a missing program and 126 for one that cannot run', async () => {
    const missing = await cli.type(['exec', 'talk', '--', 'nosuch']);
    assert.equal(missing.code, 127);
    assert.match(missing.stderr, /^podvm: Cannot run nosuch: no such program\n {2}fix: /);
    assert.equal((await cli.type(['exec', 'talk', '--', '/nosuch'])).code, 127);
    assert.equal((await cli.type(['exec', 'talk', '--', '/etc/passwd'])).code, 126);
    const make = 'cd /tmp && echo "#!/none" >script && echo none >program && chmod +x script program';
    assert.equal((await cli.type(['exec', 'talk', '--', 'sh', '-c', make])).code, 0);
    const script = await cli.type(['exec', 'talk', '--', '/tmp/script']);
    assert.equal(script.code, 127);
    assert.match(script.stderr, /^podvm: Cannot run \/tmp\/script: the interpreter .* is missing\n {2}fix: /);
    assert.equal((await cli.type(['exec', 'talk', '--', '/tmp/program'])).code, 126);
  });

  it('exec accepts a command with options without --, and its own options before it', async () => {
    const { code, stdout } = await cli.type(['exec', 'talk', 'sh', '-c', 'echo $0', '-i']);
    assert.deepEqual([code, stdout], [0, '-i\n']);
    assert.equal((await cli.type(['exec', 'talk', '-c', 'b', 'sh', '-c', 'exit 5'])).code, 5);
  });

  it('exec -i passes standard input to the command', async () => {
    assert.equal((await cli.type(['exec', '-i', 'talk', '--', 'cat'], 'through\n')).stdout, 'through\n');
  });

  it('exec -i prints nothing itself, whatever happens to its input', async () => {
    const many = 'x'.repeat(4 * 1024 * 1024);
    const counted = await cli.type(['exec', '-i', 'talk', 'sh', '-c', 'sleep 0.5; wc -c'], many);
    assert.deepEqual(counted, { code: 0, stdout: `${many.length}\n`, stderr: '' });
    const unread = await cli.type(['exec', '-i', 'talk', 'true'], many);
    assert.deepEqual(unread, { code: 0, stdout: '', stderr: '' });
    for (const input of ['<&-', '</dev/null', '</proc/version']) {
      const line = `exec setsid --wait ./podvm --root ${cli.root} exec -i talk true ${input}`;
      const { stdout, stderr } = await run('sh', ['-c', line], { env: { ...process.env } as Record<string, string> });
      assert.deepEqual([stdout, stderr], ['', ''], input);
    }
    assert.doesNotMatch(talking.stderr(), /Warning|node:/);
  });

  it('exec -it gives the command a terminal of our size', async () => {
    const line = `stty rows 33 cols 77; exec ./podvm --root ${cli.root} exec -it talk -- sh -c 'tty; stty size'`;
    const { stdout } = await run('script', ['-qec', line, '/dev/null'], {
      env: { ...process.env } as Record<string, string>,
    });
    assert.match(stdout, /\/dev\/pts\/\d/); // `script` itself adds ^@ somewhere: the end of its own input
    assert.match(stdout, /33 77\r/);
  });

  it('inspect shows the machine, and console its kernel’s output', async () => {
    const details = JSON.parse((await cli.type(['inspect', 'talk'])).stdout) as { sandbox: { state: string } };
    assert.equal(details.sandbox.state, 'ready');
    assert.equal((await cli.type(['console', 'talk'])).code, 0);
  });

  it('a missing pod or container fails with 125, and lists the existing ones', async () => {
    const pod = await cli.type(['exec', 'tal', '--', 'true']);
    assert.equal(pod.code, 125);
    assert.match(pod.stderr, /^podvm: Cannot find pod tal\n {2}fix: .*podvm ps/);
    const container = await cli.type(['logs', 'talk', '-c', 'zz']);
    assert.equal(container.code, 125);
    assert.match(container.stderr, /it has first, a, b/);
  });

  it('a second run joins the first: its exit code is its own', async () => {
    const { code, stdout } = await cli.type(['run', '--network', 'none', '-'], once('echo alone; exit 7'));
    assert.deepEqual({ code, stdout }, { code: 7, stdout: 'alone\n' });
  });

  it('a second Ctrl-C kills a container that ignores SIGTERM', async () => {
    const typed = cli.start(['run', '--network', 'none', '-'], stubborn);
    await typed.shows(/up/);
    typed.child.kill('SIGINT');
    await typed.shows(/stopping/); // two at once would be one
    typed.child.kill('SIGINT');
    assert.notEqual((await typed.ended).code, 0);
  });

  it('Ctrl-C lets containers end by themselves', async () => {
    talking.child.kill('SIGINT');
    const { code, stdout } = await talking.ended;
    assert.match(stdout, /talk\/a +\| got TERM\n/);
    assert.equal(code, 3);
    assert.equal((await cli.type(['ps'])).stdout.trim().split('\n').length, 1);
  });
});

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { type CliNode, openCliNode, repo } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const claim = `apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: notes }
spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 16Mi } } }
`;
const pod = (name: string, script: string) => `${claim}---
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{ name: notes, persistentVolumeClaim: { claimName: notes } }]
  containers:
    - name: c
      image: localhost/podvm/base
      command: [sh, -c, '${script}']
      volumeMounts: [{ name: notes, mountPath: /notes }]
`;
const job = `apiVersion: batch/v1
kind: Job
metadata: { name: parts }
spec:
  completions: 2
  parallelism: 2
  completionMode: Indexed
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: c
          image: localhost/podvm/base
          command: [sh, -c, 'echo part $JOB_COMPLETION_INDEX; exit CODE']
`;
const port = 30_098;
const pages = `http://127.0.0.1:${port}/index.html`;

describe('files of clusters', { skip: await whyNoVm(), timeout: 420_000 }, () => {
  let cli: CliNode;
  before(async () => (cli = await openCliNode({ isSetUp: true, startsNode: true })));
  after(async () => {
    await cli.type(['uninstall']);
    await cli[Symbol.asyncDispose]();
  });

  it('give a pod a volume of the requested size, which the next pod waits for and finds unchanged', async () => {
    const writes = 'ls -A /notes; echo kept >/notes/file; dd if=/dev/zero of=/notes/big bs=1M';
    const writer = await cli.type(['run', '-'], pod('writer', writes));
    assert.deepEqual([writer.stdout, writer.code], ['', 1], writer.stderr);
    assert.match(writer.stderr, /No space left on device/);
    const lines = await cli.type(['logs', '-t', '--since', '1h', 'writer']);
    assert.match(lines.stdout, /^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z dd: .*No space left on device$/m);
    assert.equal((await cli.type(['logs', '--until', '1h', 'writer'])).stdout, '');
    const holder = await cli.type(['run', '-d', '-'], pod('holder', 'rm /notes/big; exec sleep 1000'));
    assert.equal(holder.code, 0, holder.stderr);
    const next = cli.start(['run', '--rm', '-'], pod('next', 'cat /notes/file; df -m /notes | tail -n 1'));
    await next.shows(/it is in use by the host or another machine/);
    assert.match((await cli.type(['volume', 'rm', 'notes'])).stderr, /pod \S+ has it\n {2}fix: Stop the pod first/);
    assert.equal((await cli.type(['rm', '-f', 'holder'])).code, 0);
    const { stdout, stderr, code } = await next.ended;
    assert.match(stdout, /^kept\n.* 1[0-6] +\d+ +\d+ .*\/notes\n$/, stderr);
    assert.equal(code, 0);
    assert.match((await cli.type(['volume', 'ls'])).stdout, /\ndefault +notes +16 MiB +\d+ MiB +\d+s +-\n/);
    assert.equal((await cli.type(['volume', 'rm', 'notes'])).stdout, 'default/notes removed\n');
    assert.equal((await cli.type(['volume', 'ls', '-o', 'name'])).stdout, '');
  });

  it('give a volume the larger size that its claim requests, with its data, before and while a pod has it', async () => {
    const sized = (text: string, size: string) => text.replace('16Mi', size);
    const first = await cli.type(['run', '--rm', '-'], pod('first', 'echo kept >/notes/file'));
    assert.equal(first.code, 0, first.stderr);
    const holder = await cli.type(['run', '-d', '-'], sized(pod('holder', 'exec sleep 1000'), '64Mi'));
    assert.equal(holder.code, 0, holder.stderr);
    const inPod = async (line: string) => (await cli.type(['exec', 'holder', '--', 'sh', '-c', line])).stdout;
    const mebibytes = async () => Number(/ (\d+) +\d+ +\d+ /.exec(await inPod('df -m /notes | tail -n 1'))?.[1]);
    assert.ok((await mebibytes()) > 50, `${await mebibytes()} MiB`);
    assert.equal(await inPod('cat /notes/file'), 'kept\n');
    const changed = await cli.type(['diff', '-f', '-'], sized(claim, '128Mi'));
    assert.match(changed.stdout, /-storage: 67108864\n\+storage: 134217728\n/);
    const larger = await cli.type(['apply', '-f', '-'], sized(claim, '128Mi'));
    assert.equal(larger.stdout, 'PersistentVolumeClaim default/notes configured\n', larger.stderr);
    const isLarger = await poll(async () => ((await mebibytes()) > 110 ? true : undefined), {
      everyMs: 500,
      signal: AbortSignal.timeout(60_000),
    });
    assert.ok(isLarger, `${await mebibytes()} MiB`);
    const smaller = await cli.type(['apply', '-f', '-'], sized(claim, '64Mi'));
    assert.match(smaller.stderr, /134217728 bytes and cannot shrink, and the claim requests 67108864/);
    assert.equal((await cli.type(['rm', '-f', 'holder'])).code, 0);
    assert.equal((await cli.type(['volume', 'rm', 'notes'])).code, 0);
  });

  it('run a Job, whose outcome is the exit code', async () => {
    const done = await cli.type(['run', '--rm', '-'], job.replace('CODE', '0'));
    assert.deepEqual([...done.stdout.matchAll(/part \d/g)].map(String).toSorted(), ['part 0', 'part 1'], done.stderr);
    assert.equal(done.code, 0);
    const failed = await cli.type(['run', '--rm', '-'], job.replace('CODE', '4'));
    assert.equal(failed.code, 4);
    assert.match(failed.stderr, /Job default\/parts has failed: BackoffLimitExceeded/);
  });

  it('go on with a Job after the end of the node, and do not run it again', async () => {
    const text = `apiVersion: batch/v1
kind: Job
metadata: { name: steps }
spec:
  completions: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{ name: c, image: localhost/podvm/base, command: [sh, -c, 'until [ -e /go ]; do sleep 1; done'] }]
`;
    const killNode = async () => {
      const { pid } = JSON.parse(await readFile(join(cli.root, 'node.ready'), 'utf8')) as { pid: number };
      process.kill(pid, 'SIGKILL');
    };
    const untilShown = async (args: readonly string[], pattern: RegExp) => {
      const isShown = async () => pattern.exec((await cli.type(args)).stdout) ?? undefined;
      const found = await poll(isShown, { everyMs: 500, signal: AbortSignal.timeout(120_000) });
      return found ?? assert.fail(`no ${String(pattern)} of ${args.join(' ')}`);
    };
    const step = async () => {
      const [, name = ''] = await untilShown(['ps', '-l', 'job-name=steps'], /\ndefault +(\S+) +1\/1 +Running/);
      return await cli.type(['exec', name, 'touch', '/go']);
    };
    assert.equal((await cli.type(['apply', '-f', '-'], text)).stdout, 'Job default/steps created\n');
    for (const succeeded of [1, 2]) {
      await untilShown(['ps', '-l', 'job-name=steps'], / 1\/1 +Running/); // a machine that is not ready is lost with its node
      await killNode();
      const { code, stderr } = await step(); // by the next node, which has the pod from the one before
      assert.equal(code, 0, stderr);
      await untilShown(['get', 'jobs'], new RegExp(` ${succeeded} succeeded`));
    }
    await untilShown(['get', 'jobs'], /Job +steps +complete, 2 succeeded/);
    await killNode();
    await untilShown(['get', 'jobs'], /Job +steps +complete, 2 succeeded/); // a node that is still ending does not answer
    assert.equal((await cli.type(['apply', '-f', '-'], text)).stdout, 'Job default/steps unchanged\n');
    assert.equal((await cli.type(['ps', '-a', '-q', '-l', 'job-name=steps'])).stdout.split('\n').length, 3);
    assert.equal((await cli.type(['delete', '-f', '-'], text)).code, 0);
    assert.doesNotMatch((await cli.type(['get', 'jobs'])).stdout, /steps/);
  });

  it('are applied once, rolled when they change, and deleted without their volumes', async () => {
    const text = (await readFile(join(repo, 'examples/pages.yaml'), 'utf8')).replace(
      'nodePort: 30088',
      `nodePort: ${port}`,
    );
    const file = join(cli.root, 'pages.yaml');
    await writeFile(file, text);
    const first = await cli.type(['apply', '-f', file]);
    assert.equal(
      first.stdout,
      'PersistentVolumeClaim default/pages created\nService default/pages created\nDeployment default/pages created\n',
      first.stderr,
    );
    const page = async () =>
      await poll(
        async () => {
          const { stdout } = await run('curl', ['-fsS', pages], { okCodes: [0, 7, 22, 52, 56] });
          return stdout === '' ? undefined : stdout;
        },
        { everyMs: 100, signal: AbortSignal.timeout(60_000) },
      );
    assert.equal(await page(), 'Hello, start 0\n');
    assert.equal((await cli.type(['diff', '-f', file])).code, 0);
    const second = await cli.type(['apply', '-f', file]);
    assert.equal(
      second.stdout,
      'PersistentVolumeClaim default/pages unchanged\nService default/pages unchanged\nDeployment default/pages unchanged\n',
      second.stderr,
    );
    const other = text.replace('greeting: Hello', 'greeting: Goodbye');
    const diff = await cli.type(['diff', '-f', '-'], other);
    assert.match(diff.stdout, /^--- Pod default\/pages-0 now\n[^]*\n- +greeting: Hello\n\+ +greeting: Goodbye\n/);
    assert.equal(diff.code, 1);
    const configured = /ConfigMap default\/pages configured\nDeployment default\/pages unchanged\n$/;
    assert.match((await cli.type(['apply', '-f', '-'], other)).stdout, configured);
    assert.equal((await cli.type(['restart', 'pages-0'])).code, 0); // its variable is of the ConfigMap
    assert.equal(await page(), 'Hello, start 0\nGoodbye, start 1\n');
    const deleted = await cli.type(['delete', '-f', file]);
    assert.equal(
      deleted.stdout,
      'Deployment default/pages deleted\nService default/pages deleted\nPersistentVolumeClaim default/pages kept\n',
    );
    assert.equal((await cli.type(['volume', 'ls', '-o', 'name'])).stdout, 'default/pages\n');
    assert.doesNotMatch((await cli.type(['ps', '-a'])).stdout, /pages/);
  });
});

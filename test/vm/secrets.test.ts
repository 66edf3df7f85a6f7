import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { whyNoVm } from './node.ts';
import { type CliNode, openCliNode, type Typed } from './cli-node.ts';
import { filesOf, filesWith, processesWith } from './find-text.ts';

/**
 * Places of a Secret's bytes while its pod runs, and afterwards: the guest's memory, and nothing on the host that
 * outlives the machine. Each way into a container has a secret of its own.
 */
const skip = await whyNoVm();
const secret = () => `s3cr3t${randomBytes(12).toString('hex')}`;
const madeAtMs = Date.now();
const secrets = { file: secret(), environment: secret() };
/** The secrets as text, and as they are in YAML and on the wire. */
const forms = Object.values(secrets).flatMap((text) => [text, Buffer.from(text).toString('base64').replace(/=+$/, '')]);

const yaml = `
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {file: ${Buffer.from(secrets.file).toString('base64')}}
stringData: {environment: ${secrets.environment}}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: [{name: keys, secret: {secretName: keys, items: [{key: file, path: file}]}}]
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, 'test -s /keys/file && test -n "$KEY" && echo up; while :; do sleep 0.1; done']
      resources: {limits: {ephemeral-storage: 64Mi}}
      env: [{name: KEY, valueFrom: {secretKeyRef: {name: keys, key: environment}}}]
      volumeMounts: [{name: keys, mountPath: /keys}]
`;

describe('a Secret', { skip, timeout: 300_000 }, () => {
  let cli: CliNode;
  let keeper: Typed;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    keeper = cli.start(['--log-level', 'debug', 'run', '-'], yaml);
    await keeper.shows(/^up|\sup\n/);
  });
  after(async () => await cli[Symbol.asyncDispose]());

  it('reaches its container, by a file and by the environment', async () => {
    const { stdout, code } = await cli.type(['exec', 'keeper', '--', 'sh', '-c', 'cat /keys/file; echo; echo "$KEY"']);
    assert.deepEqual([code, stdout], [0, `${secrets.file}\n${secrets.environment}\n`]);
  });

  it('is in no file of the state directory, including its pod’s disk, even after a sync in the guest', async () => {
    // Finds a text that is no secret, which shows that the search works.
    const known = secret();
    assert.equal((await cli.type(['exec', 'keeper', '--', 'sh', '-c', `echo ${known} > /file; sync`])).code, 0);
    const files = await filesOf(cli.root);
    assert.ok(
      files.some((file) => file.endsWith('scratch.ext4')) && files.some((file) => file.endsWith('console.log')),
    );
    assert.deepEqual(
      (await filesWith([known], files)).map((file) => basename(file)),
      ['scratch.ext4'],
    );
    assert.deepEqual(await filesWith(forms, files), []);
  });

  it('is in no template, which was not written since the secret was made', async () => {
    const templates = await filesOf(join(cli.root, 'templates'), true);
    assert.ok(templates.length > 0);
    for (const file of templates) assert.ok((await stat(file)).mtimeMs < madeAtMs, file);
  });

  it('is in no argument or environment of a process', async () => {
    assert.deepEqual(await processesWith(forms), []);
  });

  it('is not in the output of a command, nor on standard error', async () => {
    for (const command of [['inspect', 'keeper'], ['ps'], ['logs', 'keeper'], ['console', 'keeper'], ['doctor']]) {
      const { stdout, stderr } = await cli.type(command);
      for (const form of forms) assert.ok(!`${stdout}${stderr}`.includes(form), command.join(' '));
    }
    const bad = yaml.replace('image: localhost', 'imag: localhost').replaceAll('keeper', 'other');
    const { code, stderr } = await cli.type(['run', '-'], bad);
    assert.equal(code, 125);
    for (const form of forms) assert.ok(!stderr.includes(form), stderr);
    for (const form of forms) assert.ok(!keeper.stderr().includes(form));
  });

  it('is removed with its pod', async () => {
    keeper.child.kill('SIGINT');
    await keeper.ended;
    assert.deepEqual(await filesWith(forms, await filesOf(cli.root)), []);
    for (const form of forms) assert.ok(!keeper.stderr().includes(form));
  });
});

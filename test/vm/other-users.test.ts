import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { filesBelow, openTo, otherUsers } from '../other-users.ts';
import { type CliNode, openCliNode, repo } from './cli-node.ts';
import { whyNoVm } from './node.ts';

/** Paths of a node that users of the host other than root can see, with any umask of its starter. */
const known = ['assets', 'assets/current.json', 'probe', 'probe/accelerator.json', 'share'];
const pod = (share: string) => `
apiVersion: v1
kind: Secret
metadata: { name: secret }
stringData: { key: hidden }
---
apiVersion: v1
kind: Pod
metadata: { name: private }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      image: localhost/podvm/base:latest
      command: [sh, -c, 'echo said; sleep 100000']
      env: [{ name: KEY, valueFrom: { secretKeyRef: { name: secret, key: key } } }]
      volumeMounts: [{ name: share, mountPath: /share }, { name: secret, mountPath: /secret }]
  volumes:
    - { name: share, hostPath: { path: ${share} } }
    - { name: secret, secret: { secretName: secret } }
`;

await suite('a node, seen by other users of its host', { skip: await whyNoVm(), timeout: 300_000 }, () => {
  for (const umask of ['000', '077']) {
    suite(`started with umask ${umask}`, () => {
      let node: CliNode;
      const start = async (...args: readonly string[]) =>
        await node.start(args, args.includes('-') ? pod(join(node.root, 'share')) : '', join(node.root, 'starter'))
          .ended;

      before(async () => {
        node = await openCliNode({ isSetUp: true, startsNode: true });
        await mkdir(join(node.root, 'share'));
        await writeFile(join(node.root, 'starter'), `#!/bin/sh\numask ${umask}\nexec ${repo}/podvm "$@"\n`);
        await chmod(join(node.root, 'starter'), 0o700);
      });
      after(async () => {
        await node.type(['uninstall']);
        await node[Symbol.asyncDispose]();
      });

      test('shows them what set-up made of Debian’s archive, and is changed by none of them', async () => {
        const started = await start('run', '--detach', '-');
        assert.equal(started.code, 0, started.stderr);
        for (const user of otherUsers)
          assert.deepEqual(
            (await openTo(user, node.root)).filter((path) => !isPublic(path)).toSorted(),
            known,
            `${user}`,
          );
        const writable = (await filesBelow(node.root)).filter(({ mode }) => (mode & 0o022) !== 0);
        assert.deepEqual(writable, []);
        const ended = await start('rm', '--force', 'private');
        assert.equal(ended.code, 0, ended.stderr);
      });
    });
  }
});

/** Parts and templates contain no data of a pod. */
function isPublic(path: string): boolean {
  return /^(?:parts|templates)\//.test(path);
}

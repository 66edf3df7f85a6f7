import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { guestKernels } from '#setup/guest-kernel.ts';
import { idleOptions, refusedOptions } from '#setup/parts/kernel-config.ts';
import { fragmentFile } from '#setup/parts/small-kernel.ts';
import { currentWith, readCurrent } from '#setup/setup.ts';
import { assetsRoot, whyNoVm } from './node.ts';
import { openCliNode, ownParts } from './cli-node.ts';

/** Prints the kernel's release, and the fault of a processor that it does not know or mitigate, if there is one. */
const pod = `
apiVersion: v1
kind: Pod
metadata: {name: kernel}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, 'uname -r; grep -l Vulnerable /sys/devices/system/cpu/vulnerabilities/* || echo mitigated']
`;

/** A pod that stays. */
const staying = (name: string) => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: localhost/podvm/base:latest, command: [sh, -c, 'echo up; while :; do sleep 1; done']}]
`;

describe("the guest's kernels", { skip: await whyNoVm(), timeout: 600_000 }, () => {
  const partOf = async (name: string) => {
    const { parts = [] } = (await readCurrent(assetsRoot)) ?? {};
    return parts.find((part) => basename(part).startsWith(`${name}-`));
  };

  it("each option of the small one's fragment changes one that Debian's configuration has", async () => {
    const debian = await readFile(join((await partOf('kernel')) ?? assert.fail('no kernel'), 'config'), 'utf8');
    assert.match(debian, /^CONFIG_KVM_GUEST=y$/m);
    assert.deepEqual(idleOptions(await readFile(fragmentFile, 'utf8'), debian), []);
  });

  const kernelsThere = async () => {
    const current = (await readCurrent(assetsRoot)) ?? assert.fail('no set-up');
    return guestKernels.filter((kernel) => currentWith(kernel, current) !== undefined);
  };

  it('a pod has the one that set-up was told to use, of those that are there', async () => {
    const there = await kernelsThere();
    assert.ok(there.includes('debian'));
    await using cli = await openCliNode({ isSetUp: true });
    await ownParts(cli);
    const faults: string[] = [];
    for (const kernel of there) {
      const setUp = await cli.type(['setup', '--kernel', kernel]);
      assert.equal(setUp.code, 0, setUp.stderr);
      const { kernelVersion } = (await readCurrent(cli.root)) ?? assert.fail('no set-up');
      assert.match(kernelVersion, kernel === 'small' ? /^6\.\d+\.\d+-.*podvm$/ : /-cloud-amd64$/);
      assert.match(setUp.stdout, new RegExp(`guest kernel ${RegExp.escape(kernelVersion)},`));
      const ran = await cli.type(['run', '-'], pod);
      assert.equal(ran.stdout.split('\n')[0], kernelVersion, ran.stderr);
      faults.push(ran.stdout.split('\n').slice(1).join('\n'));
    }
    assert.equal(new Set(faults).size, 1, faults.join()); // the small one mitigates what Debian's does
  });

  it('pods that run keep theirs while set-up changes that of new pods', async () => {
    await using cli = await openCliNode({ isSetUp: true });
    await ownParts(cli);
    const choose = async (kernel: string) => {
      const setUp = await cli.type(['setup', '--kernel', kernel]);
      assert.equal(setUp.code, 0, setUp.stderr);
      return ((await readCurrent(cli.root)) ?? assert.fail('no set-up')).kernelVersion;
    };
    const [first = 'debian', ...others] = await kernelsThere();
    const pods = new Map([['first', await choose(first)]]);
    const daemon = cli.start(['daemon']);
    await daemon.shows(/ info serving /, 120_000);
    const run = async (name: string) => {
      await cli.start(['run', '-'], staying(name)).shows(/up/, 180_000);
      for (const [each, version] of pods) {
        const { stdout, stderr } = await cli.type(['exec', each, '--', 'uname', '-r']);
        assert.equal(stdout.trim(), version, stderr);
      }
    };
    await run('first');
    for (const kernel of others) {
      pods.set(kernel, await choose(kernel));
      await daemon.shows(/ info new pods get the newer parts /, 300_000);
      await run(kernel);
    }
  });

  it('the small one, if set-up has it, has the configuration of the fragment', async () => {
    const small = await partOf('small-kernel');
    const built = small === undefined ? undefined : await readFile(join(small, 'config'), 'utf8');
    const refused = built === undefined ? [] : refusedOptions(await readFile(fragmentFile, 'utf8'), built);
    assert.deepEqual(refused, []);
  });
});

import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const repo = join(import.meta.dirname, '../..');
/** Prints rules and links, without counters and tables that iptables leaves empty. */
const traces =
  "ip -br link; { iptables-save; ip6tables-save; } | grep '^-'; nft list ruleset | grep '^table' | grep -v 'table ip6* nat'; true";

describe('podvm uninstall', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  it('leaves the network as it was before the first pod, and no state; the second time there is nothing', async () => {
    await using work = await mkdtempDisposable('/var/tmp/podvm-uninstall-');
    const netns = `podvm-un-${process.pid}`;
    await run('ip', ['netns', 'add', netns]);
    await using undo = new AsyncDisposableStack();
    undo.defer(async () => void (await run('ip', ['netns', 'delete', netns])));
    const inside = ['nsenter', `--net=/run/netns/${netns}`];
    const podvm = join(work.path, 'podvm');
    await writeFile(podvm, `#!/bin/sh\nexec ${inside.join(' ')} ${join(repo, 'podvm')} "$@"\n`);
    await chmod(podvm, 0o755);
    const look = async () => (await run('nsenter', [...inside.slice(1), 'sh', '-c', traces])).stdout;
    await using node = await openCliNode({ isSetUp: true, podvm });

    const before = await look();
    const ran = await node.type(['run', '-'], await readFile(join(repo, 'examples/hello.yaml'), 'utf8'));
    assert.equal(ran.code, 0, ran.stderr);
    assert.notEqual(await look(), before);
    await mkdir(join(node.root, 'cri/pods'), { recursive: true }); // as a daemon leaves it
    await writeFile(join(node.root, 'notes.txt'), "the administrator's");
    const first = await node.type(['uninstall', '--state']);
    assert.equal(first.code, 0, first.stderr);
    assert.equal(first.stdout, `network podvm0 removed\nstate in ${node.root} removed, except notes.txt\n`);
    assert.equal(await look(), before);
    assert.ok(await isThere(join(node.root, 'notes.txt')));
    assert.equal((await node.type(['uninstall'])).stdout, 'there is nothing to remove\n');
  });
});

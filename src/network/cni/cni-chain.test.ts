import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { PodvmError } from '#base/errors.ts';
import { checkChain, whyNoCheck, type ChainCall } from './cni-chain.ts';

const soon = () => AbortSignal.timeout(60_000);
const added = { cniVersion: '1.0.0', interfaces: [], ips: [{ address: '10.1.0.5/24' }] };

let directory: string;
before(async () => void (directory = await mkdtemp(join(tmpdir(), 'podvm-chain-'))));
after(() => rm(directory, { recursive: true }));
beforeEach(async () => {
  for (const file of await readdir(directory)) await rm(join(directory, file));
});

/** Writes a plugin as a shell script that keeps its input and the order of calls. */
async function writePlugin(name: string, script: string): Promise<void> {
  const path = join(directory, name);
  const keep = `cat >${name}.input; env >${name}.env; echo ${name} >>asked`;
  await writeFile(path, `#!/bin/sh\ncd ${directory}\n${keep}\n${script}\n`);
  await chmod(path, 0o755);
}

const read = (file: string) => readFile(join(directory, file), 'utf8').catch(() => '');

function callOf(plugins: ChainCall['conflist']['plugins'], more: Partial<ChainCall> = {}): ChainCall {
  return {
    conflist: { cniVersion: '1.0.0', name: 'net', plugins },
    containerId: 'sandbox',
    netns: '/run/netns/x',
    ifName: 'eth0',
    args: { K8S_POD_NAME: 'web', IgnoreUnknown: '1' },
    capabilities: { portMappings: [{ hostPort: 80 }], mac: '02:00:00:00:00:01' },
    pluginDirs: [directory],
    timeoutMs: 60_000,
    ...more,
  };
}

describe('checkChain()', () => {
  test('calls each plugin in the order of ADD, with the result and arguments of ADD', async () => {
    for (const name of ['first', 'second']) await writePlugin(name, 'exit 0');
    const second = { type: 'second', snat: true, capabilities: { portMappings: true } };
    await checkChain(callOf([{ type: 'first' }, second]), added, soon());
    assert.equal(await read('asked'), 'first\nsecond\n');
    assert.deepEqual(JSON.parse(await read('second.input')), {
      type: 'second',
      snat: true,
      name: 'net',
      cniVersion: '1.0.0',
      runtimeConfig: { portMappings: [{ hostPort: 80 }] },
      prevResult: added,
    });
    const environment = await read('first.env');
    for (const line of ['COMMAND=CHECK', 'CONTAINERID=sandbox', 'NETNS=/run/netns/x', 'IFNAME=eth0'])
      assert.ok(environment.includes(`CNI_${line}\n`), line);
    assert.match(environment, /^CNI_ARGS=K8S_POD_NAME=web;IgnoreUnknown=1$/m);
  });

  test('ends with the message of the first plugin that finds a fault', async () => {
    await writePlugin('sad', `echo '{"code": 999, "msg": "no address", "details": "on eth0"}'; exit 1`);
    await writePlugin('next', 'exit 0');
    await assert.rejects(checkChain(callOf([{ type: 'sad' }, { type: 'next' }]), added, soon()), {
      kind: 'internal',
      message: 'Cannot pass CNI plugin sad (CHECK, network net): error 999: no address: on eth0',
    });
    assert.equal(await read('asked'), 'sad\n');
  });

  test('escapes all text of plugins', async () => {
    await writePlugin('loud', `printf '{"code": 999, "msg": "\\\\u001b[31mred"}'; exit 1`);
    await assert.rejects(checkChain(callOf([{ type: 'loud' }]), added, soon()), ({ message }: PodvmError) => {
      assert.match(message, /error 999: .*red$/);
      return !message.includes('\u001b');
    });
  });

  test('reports a plugin that dies without an answer', async () => {
    await writePlugin('dies', 'echo panic >&2; exit 2');
    await assert.rejects(checkChain(callOf([{ type: 'dies' }]), added, soon()), {
      message: 'Cannot run CNI plugin dies (CHECK, network net): it ended with 2: panic',
    });
    await writePlugin('dies', 'kill -9 $$');
    await assert.rejects(checkChain(callOf([{ type: 'dies' }]), added, soon()), {
      message: 'Cannot run CNI plugin dies (CHECK, network net): it was killed by SIGKILL',
    });
  });

  test('kills a hanging plugin and its children at the timeout', async () => {
    await writePlugin('hangs', 'sleep 600 & echo $! >child; wait');
    let child = 0;
    for (let timeoutMs = 300; child === 0; timeoutMs *= 2) {
      // on a busy host it may not have started its child
      await assert.rejects(checkChain(callOf([{ type: 'hangs' }], { timeoutMs }), added, soon()), {
        kind: 'timeout',
        message: /hangs/,
      });
      child = Number(await read('child'));
    }
    for (const deadline = soon(); await isRunning(child);) deadline.throwIfAborted();
  });

  test('calls none unless all exist', async () => {
    await writePlugin('there', 'exit 0');
    await assert.rejects(checkChain(callOf([{ type: 'there' }, { type: 'gone' }]), added, soon()), {
      kind: 'failedPrecondition',
      message: /CNI plugin gone: not found/,
    });
    assert.equal(await read('asked'), '');
  });
});

/** False also for a process that has ended and was not waited for yet. */
async function isRunning(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return /\) [^Z]/.test(stat);
}

describe('whyNoCheck()', () => {
  const plugins = [{ type: 'bridge' }];
  test('rejects networks of versions before CHECK, and those that disable it', () => {
    const why = (more: object) => whyNoCheck({ cniVersion: '1.0.0', name: 'net', plugins, ...more });
    for (const cniVersion of ['0.3.0', '0.3.1'] as const) assert.match(why({ cniVersion }) ?? '', /has no CHECK/);
    for (const disableCheck of [true, 'true']) assert.match(why({ disableCheck }) ?? '', /disableCheck/);
    for (const disableCheck of [false, 'false', undefined]) assert.equal(why({ disableCheck }), undefined);
    for (const cniVersion of ['0.4.0', '1.1.0'] as const) assert.equal(why({ cniVersion }), undefined);
  });
});

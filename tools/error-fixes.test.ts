import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { guestPatterns } from '../src/link/guest-fixes.ts';
import { errorsWithoutFix } from './error-fixes.ts';

const repo = join(import.meta.dirname, '..');

/** Errors that may lack a `fix`: by reason, the number of them in each file. */
const exceptions: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  'A client of HTTP, CRI or a streaming protocol sent an invalid request, which its user cannot change.': {
    'src/admin/http.ts': 3,
    'src/admin/routes/image-routes.ts': 1,
    'src/admin/routes.ts': 2,
    'src/cli/terminal/lines.ts': 1,
    'src/cri/image-service/image-status.ts': 1,
    'src/cri/image-service/pull-image.ts': 1,
    'src/cri/image-service/remove-image.ts': 1,
    'src/cri/rpc/service.ts': 1,
    'src/cri/runtime-service/create-container.ts': 1,
    'src/cri/runtime-service/remove-container.ts': 1,
    'src/cri/runtime-service/remove-pod-sandbox.ts': 1,
    'src/cri/runtime-service/run-pod-sandbox.ts': 1,
    'src/cri/runtime-service/stop-container.ts': 1,
    'src/cri/runtime-service/stop-pod-sandbox.ts': 1,
    'src/cri/runtime-service/update-container-resources.ts': 1,
    'src/cri/streaming/server.ts': 4,
    'src/cri/streaming/spdy/spdy-error.ts': 1,
    'src/cri/streaming/spdy/spdy-session.ts': 1,
    'src/cri/translate/container-spec.ts': 4,
    'src/cri/translate/devices.ts': 1,
    'src/cri/translate/image-mount.ts': 1,
    'src/cri/translate/int64.ts': 1,
    'src/cri/translate/mounts.ts': 1,
    'src/cri/translate/sandbox-spec.ts': 3,
    'src/cri/translate/security.ts': 2,
  },
  'Containerd sent an invalid request, or asked for a task that has ended.': {
    'src/shim/bundle/bundle.ts': 4,
    'src/shim/io/open-fifo.ts': 2,
    'src/shim/task-verbs.ts': 5,
    'src/shim/task/tasks.ts': 3,
    'src/shim/translate/container-spec.ts': 1,
    'src/shim/translate/rootfs.ts': 1,
    'src/shim/ttrpc/frame.ts': 1,
    'src/shim/ttrpc/server.ts': 3,
    'src/shim/ttrpc/service.ts': 1,
  },
  'The message names the field or line, the expected value, and the actual one.': {
    'src/pod/manifest/manifest.ts': 1,
    'src/pod/manifest/yaml-text.ts': 3,
    'src/sandbox/container/check-spec.ts': 1,
  },
  'The message names the state of a pod or container, which its client watches.': {
    'src/cri/runtime-service/attach.ts': 1,
    'src/cri/runtime-service/exec.ts': 1,
    'src/cri/runtime-service/port-forward.ts': 1,
    'src/cri/runtime-service/start-container.ts': 1,
    'src/sandbox/adoption/unreachable-sandbox.ts': 1,
    'src/sandbox/live/live-sandbox.ts': 1,
    'src/sandbox/log/read-log.ts': 1,
    'src/sandbox/live/sandbox-containers.ts': 1,
    'src/shim/create-task.ts': 1,
    'src/shim/task/container-task.ts': 1,
    'src/shim/task/exec-process.ts': 1,
  },
  'The message is the whole answer: a hook of the pod failed, or podvm cannot do this.': {
    'src/cri/runtime-service/checkpoints.ts': 1,
    'src/pod/probe/hook.ts': 1,
  },
  'Another part of podvm, a program that it runs, or a guest broke a contract.': {
    'src/host/process/run.ts': 1,
    'src/image/snapshot/flatten-layers.ts': 1,
    'src/image/snapshot/snapshot-images.ts': 1,
    'src/link/agent-link.ts': 2,
    'src/link/byte-stream.ts': 1,
    'src/link/connect-link.ts': 1,
    'src/network/attachment-request.ts': 1,
    'src/network/host-attachment.ts': 2,
    'src/network/host-network.ts': 2,
    'src/network/netns.ts': 2,
    'src/sandbox/volume/container-mounts.ts': 2,
    'src/setup/parts/kernel-modules.ts': 1,
    'src/setup/parts/recipes.ts': 1,
    'src/setup/parts/vmlinux.ts': 1,
    'src/shim/keeper/keeper.ts': 1,
    'src/shim/keeper/serve-fifos.ts': 1,
    'src/vm/machine-spec.ts': 1,
    'src/vm/qemu/devices/disks.ts': 7,
    'src/vm/qemu/devices/ports.ts': 3,
    'src/vm/qemu/qemu-driver.ts': 1,
    'src/vm/qemu/qmp/qmp.ts': 1,
  },
};

/** Directory of the agent, whose errors cross the wire without a fix: `src/link/guest-fixes.ts` adds it. */
const guest = ['src/agent/**', 'src/wire/**', 'src/file-server/**'];

test('every error that one can act on has a fix, or is listed with a reason', async () => {
  const found: Record<string, number> = {};
  const files = globSync('src/**/*.ts', { cwd: repo, exclude: ['**/*.test.ts', '**/testing/**', ...guest] });
  for (const file of files.sort()) {
    const source = await readFile(join(repo, file), 'utf8');
    if (!source.includes('new PodvmError(')) continue; // parsing every file takes a second
    const lines = errorsWithoutFix(file, source);
    if (lines.length > 0) found[file] = lines.length;
  }
  const listed = Object.assign({}, ...Object.values(exceptions)) as Record<string, number>; // SAFE: values of the table
  assert.deepEqual(found, Object.fromEntries(Object.entries(listed).sort(([a], [b]) => (a < b ? -1 : 1))));
});

test('errorsWithoutFix() finds an error without a fix, and accepts one with it', () => {
  const bad = "throw new PodvmError('invalid', 'no');\nthrow new PodvmError('denied', 'no', { cause });";
  const good = "throw new PodvmError('invalid', 'no', { cause, fix: 'Do.' });\nthrow new PodvmError('internal', 'no');";
  assert.deepEqual(errorsWithoutFix('bad.ts', bad), [1, 2]);
  assert.deepEqual(errorsWithoutFix('good.ts', good), []);
});

test('each fix for a refusal of the guest fits a message of the agent', async () => {
  const sources = globSync('src/agent/**/*.ts', { cwd: repo, exclude: ['**/*.test.ts'] });
  const text = (await Promise.all(sources.map((file) => readFile(join(repo, file), 'utf8')))).join('\n');
  // An expression in a template stands for a number or a word.
  const messages = [...text.matchAll(/(['"`])((?:(?!\1).)*)\1/g)].flatMap(([, , message = '']) => [
    message.replaceAll(/\$\{[^}]*\}/g, '1'),
    message.replaceAll(/\$\{[^}]*\}/g, 'user'),
  ]);
  const idle = guestPatterns.filter((pattern) => !messages.some((message) => pattern.test(message)));
  assert.deepEqual(idle, []);
});

import assert from 'node:assert/strict';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { openNode } from './node.ts';

/**
 * A node in a process of its own, so that it can be in a network namespace of its own. Its argument is the directory of
 * its CNI configuration; requests come over Node's channel, one at a time.
 */
const questionSchema = v.variant('verb', [
  /** Runs a pod that serves its name on port 8080; answers with its addresses. */
  v.object({ verb: v.literal('run'), pod: v.string() }),
  /** Fetches a page from a pod; answers with the page, or null. */
  v.object({ verb: v.literal('fetch'), pod: v.string(), url: v.string() }),
  /** Ends the node; answers with the traces that are left. */
  v.object({ verb: v.literal('end') }),
]);
export type Question = v.InferOutput<typeof questionSchema>;

const soon = () => AbortSignal.timeout(60_000);
const [, , cniConfigDirectory = ''] = process.argv;
const node = await openNode({ cniConfigDirectory });
const pods = new Map<string, { readonly sandbox: Sandbox; readonly container: Container }>();

process.on('message', (message) => {
  const question = v.parse(questionSchema, message);
  void answer(question)
    .then((said) => tell({ said }))
    .catch((error: unknown) => tell({ error: String(error) }))
    .then(() => {
      if (question.verb === 'end' && process.connected) process.disconnect?.();
    });
});
await tell({ said: 'ready' });

function tell(message: object): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  assert.ok(process.connected, 'run by nodes.test.ts only');
  process.send?.(message, undefined, {}, (error: Error | null) => (error === null ? resolve() : reject(error)));
  return promise;
}

async function answer(question: Question): Promise<unknown> {
  if (question.verb === 'run') return await runPod(question.pod);
  if (question.verb === 'fetch') return await fetchFrom(question.pod, question.url);
  await node[Symbol.asyncDispose]();
  return await node.leftovers();
}

async function runPod(name: string): Promise<readonly string[]> {
  const sandbox = await node.sandboxes.run({ ...sandboxSpec, name }, soon());
  const script = `mkdir /tmp/www; echo ${name} > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www`;
  const image = 'localhost/podvm/base:latest';
  const spec = { ...containerSpec, image, command: ['sh', '-c', script] };
  const container = await sandbox.createContainer(spec, soon());
  await container.start(soon());
  pods.set(name, { sandbox, container });
  return sandbox.status.addresses;
}

async function fetchFrom(name: string, url: string): Promise<string | null> {
  const pod = pods.get(name);
  if (pod === undefined) throw new PodvmError('notFound', `no pod ${name}`);
  const command = ['wget', '-q', '-T', '3', '-O', '-', url];
  const exec = await pod.container.exec({ command, tty: false, stdin: false }, soon());
  exec.stderr?.resume();
  const chunks: Buffer[] = [];
  for await (const bytes of exec.stdout) chunks.push(bytes as Buffer); // SAFE: a byte stream
  const { exitCode } = await exec.exited;
  return exitCode === 0 ? Buffer.concat(chunks).toString().trim() : null;
}
